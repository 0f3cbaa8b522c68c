//! What is measured, under vLLM's names where it has one for it, so that its dashboards fit.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

use crate::scheduler::Counts;

/// Seconds; from a token of a small model to an answer of a large one.
const SECONDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];

/// Series that every server has, whatever its engine is.
#[derive(Debug)]
pub struct Common {
    registry: Registry,
    adapters: GaugeVec,
    refused: IntCounterVec,
    requests: IntCounterVec,
}

impl Common {
    /// Series with the label `model_name`, which every series has.
    pub fn new(model_name: &str) -> Result<Self, prometheus::Error> {
        let labels = [("model_name".to_owned(), model_name.to_owned())].into();
        let registry = Registry::new_custom(None, Some(labels))?;
        let counters = |name: &str, help: &str, label: &str| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        Ok(Self {
            adapters: registered(
                &registry,
                GaugeVec::new(
                    Opts::new("anneal_adapter_info", "Adapters that are served."),
                    &["adapter", "digest"],
                ),
            )?,
            refused: counters(
                "anneal_adapter_refused_total",
                "Revisions that were not taken up.",
                "adapter",
            )?,
            requests: counters("anneal_http_requests_total", "Answers by status.", "status")?,
            registry,
        })
    }

    /// All series as text.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn request(&self, status: u16) {
        self.requests.with_label_values(&[status.to_string().as_str()]).inc();
    }

    /// The digest that an adapter is served at; none where it is not.
    pub(crate) fn adapter(&self, name: &str, before: Option<&str>, now: Option<&str>) {
        if let Some(digest) = before {
            let _ = self.adapters.remove_label_values(&[name, digest]);
        }
        if let Some(digest) = now {
            self.adapters.with_label_values(&[name, digest]).set(1.0);
        } else {
            let _ = self.refused.remove_label_values(&[name]);
        }
    }

    pub(crate) fn refused(&self, name: &str) {
        self.refused.with_label_values(&[name]).inc();
    }
}

/// All series of a server with our engine.
#[derive(Debug)]
pub struct Metrics {
    common: Arc<Common>,
    running: IntGauge,
    waiting: IntGauge,
    cache_usage: Gauge,
    preemptions: IntCounter,
    prefix_queries: IntCounter,
    prefix_hits: IntCounter,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
    first_token: Histogram,
    next_token: Histogram,
    answer: Histogram,
    finished: IntCounterVec,
    adapter_bytes: IntGauge,
    adapters_resident: IntGauge,
}

impl Metrics {
    /// Series with the label `model_name`, which every series has.
    pub fn new(model_name: &str) -> Result<Self, prometheus::Error> {
        let common = Common::new(model_name)?;
        let registry = common.registry.clone();
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            registered(&registry, Histogram::with_opts(options))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Ok(Self {
            running: gauge("vllm:num_requests_running", "Sequences that are answered.")?,
            waiting: gauge("vllm:num_requests_waiting", "Sequences that wait.")?,
            cache_usage: registered(
                &registry,
                Gauge::new("vllm:kv_cache_usage_perc", "Share of the cache in use, 0 to 1."),
            )?,
            preemptions: counter("vllm:num_preemptions_total", "Sequences put back.")?,
            prefix_queries: counter("vllm:prefix_cache_queries_total", "Tokens looked up.")?,
            prefix_hits: counter("vllm:prefix_cache_hits_total", "Tokens found.")?,
            prompt_tokens: counter("vllm:prompt_tokens_total", "Prompt tokens computed.")?,
            generation_tokens: counter("vllm:generation_tokens_total", "Tokens answered.")?,
            first_token: histogram("vllm:time_to_first_token_seconds", "Until the first token.")?,
            next_token: histogram("vllm:inter_token_latency_seconds", "Between two tokens.")?,
            answer: histogram("vllm:e2e_request_latency_seconds", "Until the last token.")?,
            finished: counters(
                "vllm:request_success_total",
                "Sequences that ended.",
                &["finished_reason"],
            )?,
            adapter_bytes: gauge("anneal_adapter_bytes", "Bytes of adapters in memory.")?,
            adapters_resident: gauge("anneal_adapters_resident", "Adapters in memory.")?,
            common: Arc::new(common),
        })
    }

    /// Series that do not depend on the engine.
    pub fn common(&self) -> &Arc<Common> {
        &self.common
    }

    pub(crate) fn engine(&self, counts: &Counts, adapter_bytes: u64, adapters: usize) {
        self.running.set(counts.running as i64);
        self.waiting.set(counts.waiting as i64);
        self.cache_usage.set(counts.blocks_held as f64 / counts.blocks.max(1) as f64);
        for (counter, total) in [
            (&self.preemptions, counts.preemptions),
            (&self.prefix_queries, counts.prefix_queries),
            (&self.prefix_hits, counts.prefix_hits),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.adapter_bytes.set(adapter_bytes as i64);
        self.adapters_resident.set(adapters as i64);
    }

    pub(crate) fn prompt_tokens(&self, count: u64) {
        self.prompt_tokens.inc_by(count);
    }

    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
        self.generation_tokens.inc();
    }

    pub(crate) fn next_token(&self, after: Duration) {
        self.next_token.observe(after.as_secs_f64());
        self.generation_tokens.inc();
    }

    pub(crate) fn whole_answer(&self, after: Duration) {
        self.answer.observe(after.as_secs_f64());
    }

    pub(crate) fn finished(&self, reason: &str) {
        self.finished.with_label_values(&[reason]).inc();
    }
}

fn registered<C>(registry: &Registry, made: prometheus::Result<C>) -> prometheus::Result<C>
where
    C: prometheus::core::Collector + Clone + 'static,
{
    let collector = made?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
