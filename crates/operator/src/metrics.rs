//! Metrics, under the names that controller-runtime gives them, and our own under `anneal_`.
//!
//! [`queue`] follows the work queue, [`runs`] counts what happens, [`snapshot`] tells what is.

mod facts;
mod process;
mod queue;
mod runs;
mod snapshot;

use std::time::{Duration, Instant};

use api::FineTuneWorkspace;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use plan::Next;
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::workspace::{Error, RETRY, Watched};
use queue::Queue;
pub(crate) use runs::Runs;

/// Label values of our controllers. The queue that is told of is the first one's.
const CONTROLLER: &str = "finetuneworkspace";
const SERVERS: &str = "modelserver";
/// Buckets of controller-runtime's reconcile histogram, in seconds, thinned.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// All metrics of the process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    active: IntGaugeVec,
    most_active: IntGaugeVec,
    requests: IntCounterVec,
    leader: IntGaugeVec,
    pub(crate) queue: Queue,
    pub(crate) runs: Runs,
}

impl Metrics {
    /// Registers every metric.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let seconds = HistogramOpts::new(
            "controller_runtime_reconcile_time_seconds",
            "Length of time per reconciliation per controller",
        );
        let seconds = HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["controller"])?;
        let build = gauge("anneal_build_info", "The build; always 1", &["version", "revision"])?;
        build.with_label_values(&[VERSION, REVISION]).set(1);
        let metrics = Self {
            reconciles: counter(
                "controller_runtime_reconcile_total",
                "Total number of reconciliations per controller",
                &["controller", "result"],
            )?,
            errors: counter(
                "controller_runtime_reconcile_errors_total",
                "Total number of reconciliation errors per controller",
                &["controller"],
            )?,
            seconds: registered(&registry, seconds)?,
            active: gauge(
                "controller_runtime_active_workers",
                "Number of currently used workers per controller",
                &["controller"],
            )?,
            most_active: gauge(
                "controller_runtime_max_concurrent_reconciles",
                "Maximum number of concurrent reconciles per controller",
                &["controller"],
            )?,
            requests: counter(
                "rest_client_requests_total",
                "Number of HTTP requests, partitioned by status code, method, and host",
                &["code", "method", "host"],
            )?,
            leader: gauge(
                "leader_election_master_status",
                "Gauge of if the reporting system is master of the relevant lease",
                &["name"],
            )?,
            queue: Queue::new(&registry)?,
            runs: Runs::new(&registry)?,
            registry,
        };
        // Present from the start, so that a rate has a beginning.
        for controller in [CONTROLLER, SERVERS] {
            metrics.errors.with_label_values(&[controller]);
            for result in ["success", "error", "requeue_after"] {
                metrics.reconciles.with_label_values(&[controller, result]);
            }
        }
        Ok(metrics)
    }

    /// Counts the beginning of a pass.
    pub(crate) fn reconcile_started(&self, object: ObjectRef<Watched>) -> Timer {
        let start = Instant::now();
        self.active.with_label_values(&[CONTROLLER]).inc();
        self.queue.started(object.clone(), start);
        Timer { metrics: self.clone(), object, start, next: None, has_failed: false }
    }

    /// Counts a pass that will be tried again.
    pub(crate) fn reconcile_failed(&self) {
        self.errors.with_label_values(&[CONTROLLER]).inc();
    }

    /// Counts a pass over a server.
    pub(crate) fn server_pass(&self, took: Duration, result: &Result<Next, Error>) {
        self.reconciles.with_label_values(&[SERVERS, word(result)]).inc();
        self.seconds.with_label_values(&[SERVERS]).observe(took.as_secs_f64());
        if result.is_err() {
            self.errors.with_label_values(&[SERVERS]).inc();
        }
    }

    /// A workspace is gone.
    pub(crate) fn gone(&self, object: &ObjectRef<Watched>) {
        self.queue.gone(object);
        self.runs.gone(object);
    }

    /// How many passes may be made at the same time.
    pub(crate) fn workers(&self, workers: u16) {
        self.most_active.with_label_values(&[CONTROLLER]).set(i64::from(workers));
    }

    /// Counts an answer of the API server.
    pub(crate) fn request(&self, code: &str, method: &str, host: &str) {
        self.requests.with_label_values(&[code, method, host]).inc();
    }

    /// Whether this process holds the lease.
    pub(crate) fn leads(&self, lease: &str, leads: bool) {
        self.leader.with_label_values(&[lease]).set(i64::from(leads));
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn text<'a>(
        &self,
        workspaces: impl Iterator<Item = &'a FineTuneWorkspace> + Clone,
    ) -> Result<Vec<u8>, prometheus::Error> {
        self.queue.look(Instant::now());
        self.runs.look(Timestamp::now());
        self.runs.keep(workspaces.clone());
        let mut families = self.registry.gather();
        families.extend(snapshot::families(workspaces)?);
        families.extend(process::families()?);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// Set by whoever builds a release.
pub(crate) const VERSION: &str = match option_env!("ANNEAL_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
const REVISION: &str = match option_env!("ANNEAL_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

fn registered<C>(registry: &Registry, collector: C) -> Result<C, prometheus::Error>
where
    C: Collector + Clone + 'static,
{
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// One pass that is being made.
pub(crate) struct Timer {
    metrics: Metrics,
    object: ObjectRef<Watched>,
    start: Instant,
    next: Option<Duration>,
    has_failed: bool,
}

impl Timer {
    /// Counts how the pass ended.
    pub(crate) fn done(mut self, result: &Result<Next, Error>) {
        self.next = match result {
            Ok(Next::OnChange) => None,
            Ok(Next::After(time)) => Some(*time),
            Err(_) => Some(RETRY),
        };
        self.has_failed = result.is_err();
        self.metrics.reconciles.with_label_values(&[CONTROLLER, word(result)]).inc();
    }
}

/// How a pass ended, in controller-runtime's words.
fn word(result: &Result<Next, Error>) -> &'static str {
    match result {
        Ok(Next::OnChange) => "success",
        Ok(Next::After(_)) => "requeue_after",
        Err(_) => "error",
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.metrics.active.with_label_values(&[CONTROLLER]).dec();
        let now = Instant::now();
        let seconds = now.saturating_duration_since(self.start).as_secs_f64();
        self.metrics.seconds.with_label_values(&[CONTROLLER]).observe(seconds);
        self.metrics.queue.ended(self.object.clone(), now, self.next, self.has_failed);
    }
}
