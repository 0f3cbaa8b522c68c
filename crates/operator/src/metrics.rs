//! Metrics, under the names that controller-runtime gives them, and our own under `anneal_`.

use std::time::Instant;

use kube::runtime::controller::Action;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::workspace::Error;

/// Label value of our one controller.
const CONTROLLER: &str = "finetuneworkspace";
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
    requests: IntCounterVec,
    leader: IntGaugeVec,
    workspaces: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "controller_runtime_reconcile_time_seconds",
                "Length of time per reconciliation per controller",
            )
            .buckets(SECONDS.to_vec()),
            &["controller"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
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
            seconds,
            active: gauge(
                "controller_runtime_active_workers",
                "Number of currently used workers per controller",
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
            workspaces: gauge("anneal_workspaces", "Workspaces by phase", &["phase"])?,
            registry,
        };
        // Present from the start, so that a rate has a beginning.
        metrics.errors.with_label_values(&[CONTROLLER]);
        for result in ["success", "error", "requeue_after"] {
            metrics.reconciles.with_label_values(&[CONTROLLER, result]);
        }
        Ok(metrics)
    }

    /// Counts the beginning of a pass.
    pub(crate) fn reconcile_started(&self) -> Timer {
        self.active.with_label_values(&[CONTROLLER]).inc();
        Timer { metrics: self.clone(), start: Instant::now() }
    }

    /// Counts a pass that will be tried again.
    pub(crate) fn reconcile_failed(&self) {
        self.errors.with_label_values(&[CONTROLLER]).inc();
    }

    /// Counts an answer of the API server.
    pub(crate) fn request(&self, code: &str, method: &str, host: &str) {
        self.requests.with_label_values(&[code, method, host]).inc();
    }

    /// Whether this process holds the lease.
    pub(crate) fn leads(&self, lease: &str, leads: bool) {
        self.leader.with_label_values(&[lease]).set(i64::from(leads));
    }

    /// Sets the number of workspaces in each phase.
    pub(crate) fn workspaces<'a>(&self, phases: impl Iterator<Item = &'a str>) {
        self.workspaces.reset();
        for phase in phases {
            self.workspaces.with_label_values(&[phase]).inc();
        }
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// One pass that is being made.
pub(crate) struct Timer {
    metrics: Metrics,
    start: Instant,
}

impl Timer {
    /// Counts how the pass ended.
    pub(crate) fn done(&self, result: &Result<Action, Error>) {
        let word = match result {
            Ok(action) if *action == Action::await_change() => "success",
            Ok(_) => "requeue_after",
            Err(_) => "error",
        };
        self.metrics.reconciles.with_label_values(&[CONTROLLER, word]).inc();
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.metrics.active.with_label_values(&[CONTROLLER]).dec();
        let seconds = self.start.elapsed().as_secs_f64();
        self.metrics.seconds.with_label_values(&[CONTROLLER]).observe(seconds);
    }
}
