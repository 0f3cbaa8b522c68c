//! What runs took: waits, pulls, trainings, pushes, GPU-seconds, and how they ended.
//!
//! All of it is read off timestamps of Jobs and pods, so that nothing is lost or counted twice when
//! passes are late. Only what happens while this process looks is counted: what lay behind an object at
//! the first sight of it was another process's to count.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::FineTuneWorkspace;
use api::condition::{READY, Reason};
use api::workspace::{FineTuneWorkspaceStatus, GpuSeconds, Phase};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use plan::{Observed, Plan};
use prometheus::core::Collector as _;
use prometheus::proto::{LabelPair, Metric};
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
};

use crate::workspace::Watched;

use super::facts::{self, Fact, Held, OUTCOMES, ROLES, What};

/// Buckets from a second to a week.
const LONG: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 36_000.0, 86_400.0, 259_200.0, 604_800.0,
];

/// Namespace and name of a workspace.
type Key = (String, String);

/// Metrics of runs, and what has been counted already.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    known: Arc<Mutex<HashMap<Key, Known>>>,
    ended: IntCounterVec,
    queue: Histogram,
    provision: Histogram,
    pull: HistogramVec,
    preflight: HistogramVec,
    train: HistogramVec,
    push: Histogram,
    gpu_seconds: CounterVec,
    node_gpu_seconds: IntCounterVec,
}

/// What is known of one workspace.
#[derive(Debug, Default)]
struct Known {
    phase: Option<Phase>,
    counted: HashSet<(String, What)>,
    /// GPUs that are held, by pod: how many, and until when they have been counted.
    holds: HashMap<String, (f64, Timestamp)>,
    /// What the status said of GPUs of nodes when they were counted last, and of which revision.
    told: (Option<String>, GpuSeconds),
}

impl Runs {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, label: &str, values: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(LONG.to_vec());
            let histogram = HistogramVec::new(options, &[label])?;
            registry.register(Box::new(histogram.clone()))?;
            // Present from the start, so that a rate has a beginning.
            for value in values {
                histogram.with_label_values(&[value]);
            }
            Ok::<_, prometheus::Error>(histogram)
        };
        let alone = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(LONG.to_vec());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let ended = Opts::new("anneal_runs_total", "Runs that ended, by phase and reason");
        let ended = IntCounterVec::new(ended, &["phase", "reason"])?;
        registry.register(Box::new(ended.clone()))?;
        let of_success = [Reason::Succeeded, Reason::GateFailed];
        for reason in Reason::ALL {
            let phase = if of_success.contains(reason) { "Succeeded" } else { "Failed" };
            ended.with_label_values(&[phase, reason.as_str()]);
        }
        let gpus = "GPUs times the seconds for which pods held them";
        let gpus = CounterVec::new(Opts::new("anneal_gpu_seconds_total", gpus), &[NAMESPACE])?;
        registry.register(Box::new(gpus.clone()))?;
        let of_nodes = Opts::new("anneal_node_gpu_seconds_total", OF_NODES);
        let of_nodes = IntCounterVec::new(of_nodes, &[NAMESPACE, "what"])?;
        registry.register(Box::new(of_nodes.clone()))?;
        let (queue, pull) = ("From a training Job's creation to its admission", PULL);
        let provision = "From a training pod's creation to its assignment to a node";
        let preflight = "Run time of preflight containers";
        let train = "Run time of training containers: training, evaluation and push";
        let push = "Time that the push of an adapter took, as the trainer tells it";
        Ok(Self {
            known: Arc::default(),
            ended,
            queue: alone("anneal_queue_seconds", queue)?,
            provision: alone("anneal_provisioning_seconds", provision)?,
            pull: histogram("anneal_pull_seconds", pull, "role", &ROLES)?,
            preflight: histogram("anneal_preflight_seconds", preflight, "outcome", &OUTCOMES)?,
            train: histogram("anneal_train_seconds", train, "outcome", &OUTCOMES)?,
            push: alone("anneal_push_seconds", push)?,
            gpu_seconds: gpus,
            node_gpu_seconds: of_nodes,
        })
    }

    /// A pass saw this, and decided that.
    pub(crate) fn saw(&self, workspace: &FineTuneWorkspace, seen: &Observed, plan: &Plan) {
        let Some(key) = key(workspace) else { return };
        let mut all = self.known();
        let is_first = !all.contains_key(&key);
        let namespace = key.0.clone();
        let known = all.entry(key).or_default();
        if is_first {
            known.phase = workspace.status.as_ref().and_then(|status| status.phase);
            known.told = workspace.status.as_ref().map(told).unwrap_or_default();
        }
        self.count_end(known, &plan.status);
        self.count_nodes(known, &namespace, &plan.status);
        let of_jobs = seen.jobs.iter().filter_map(facts::of_job);
        let facts: Vec<Fact> = of_jobs.chain(seen.pods.iter().flat_map(facts::of_pod)).collect();
        for fact in facts.iter().filter(|fact| !is_first && !known.counted.contains(&fact.id())) {
            self.observe(fact);
        }
        // Of objects that are gone nothing more will be told.
        known.counted = facts.iter().map(Fact::id).collect();
        let now = seen.now.0;
        let held: Vec<Held> = seen.pods.iter().filter_map(|pod| facts::held(pod, now)).collect();
        self.count_gpus(known, &namespace, held, is_first.then_some(now), now);
    }

    /// Forgets a workspace.
    pub(super) fn gone(&self, object: &ObjectRef<Watched>) {
        let namespace = object.namespace.clone().unwrap_or_default();
        self.known().remove(&(namespace, object.name.clone()));
    }

    /// Forgets workspaces that are gone, and with the last one of a namespace its series.
    pub(super) fn keep<'a>(&self, there: impl Iterator<Item = &'a FineTuneWorkspace>) {
        let there: HashSet<Key> = there.filter_map(key).collect();
        let mut known = self.known();
        known.retain(|key, _| there.contains(key));
        let left: HashSet<&str> = there.iter().map(|(namespace, _)| namespace.as_str()).collect();
        let families = [self.gpu_seconds.collect(), self.node_gpu_seconds.collect()];
        for family in families.into_iter().flatten() {
            let labels = family.get_metric().iter().flat_map(Metric::get_label);
            let namespaces = labels.filter(|label| label.name() == NAMESPACE);
            for gone in namespaces.map(LabelPair::value).filter(|name| !left.contains(name)) {
                let _ = self.gpu_seconds.remove_label_values(&[gone]);
                for what in OF_WHAT {
                    let _ = self.node_gpu_seconds.remove_label_values(&[gone, what]);
                }
            }
        }
    }

    /// Counts GPU-seconds up to a moment.
    pub(super) fn look(&self, now: Timestamp) {
        for ((namespace, _), known) in self.known().iter_mut() {
            for (gpus, until) in known.holds.values_mut() {
                self.add_gpu_seconds(namespace, *gpus, until, now);
            }
        }
    }

    fn count_end(&self, known: &mut Known, status: &FineTuneWorkspaceStatus) {
        let has_ended = |phase| matches!(phase, Some(Phase::Succeeded | Phase::Failed));
        if let Some(phase) = status.phase
            && has_ended(status.phase)
            && !has_ended(known.phase)
        {
            let ready = status.conditions.iter().find(|one| one.type_ == READY);
            let reason = ready.map_or("", |ready| ready.reason.as_str());
            self.ended.with_label_values(&[&*format!("{phase:?}"), reason]).inc();
        }
        known.phase = status.phase;
    }

    /// The status's sums of what is over, as far as they have grown.
    fn count_nodes(&self, known: &mut Known, namespace: &str, status: &FineTuneWorkspaceStatus) {
        let now = told(status);
        let before =
            if known.told.0 == now.0 { known.told.1.clone() } else { GpuSeconds::default() };
        let grown = [
            now.1.asked.saturating_sub(before.asked),
            now.1.held.saturating_sub(before.held),
            now.1.used.saturating_sub(before.used),
        ];
        for (what, seconds) in OF_WHAT.into_iter().zip(grown).filter(|(_, seconds)| *seconds > 0) {
            self.node_gpu_seconds.with_label_values(&[namespace, what]).inc_by(seconds);
        }
        known.told = now;
    }

    fn observe(&self, fact: &Fact) {
        let histogram = match fact.what {
            What::Queue => self.queue.clone(),
            What::Provision => self.provision.clone(),
            What::Pull(role) => self.pull.with_label_values(&[role]),
            What::Preflight(outcome) => self.preflight.with_label_values(&[outcome]),
            What::Train(outcome) => self.train.with_label_values(&[outcome]),
            What::Push => self.push.clone(),
        };
        histogram.observe(fact.seconds);
    }

    /// `not_before` is the moment of the first sight.
    fn count_gpus(
        &self,
        known: &mut Known,
        namespace: &str,
        held: Vec<Held>,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) {
        let mut before = std::mem::take(&mut known.holds);
        for Held { pod, gpus, since, until } in held {
            let known_until = before.remove(&pod).map(|(_, until)| until);
            let mut counted = known_until.or(not_before).unwrap_or(since);
            self.add_gpu_seconds(namespace, gpus, &mut counted, until.unwrap_or(now));
            known.holds.insert(pod, (if until.is_some() { 0.0 } else { gpus }, counted));
        }
        for (gpus, mut counted) in before.into_values() {
            // The pod is gone since the last look.
            self.add_gpu_seconds(namespace, gpus, &mut counted, now);
        }
    }

    fn add_gpu_seconds(&self, namespace: &str, gpus: f64, counted: &mut Timestamp, to: Timestamp) {
        let seconds = to.duration_since(*counted).as_secs_f64();
        if seconds > 0.0 && gpus > 0.0 {
            self.gpu_seconds.with_label_values(&[namespace]).inc_by(seconds * gpus);
        }
        *counted = to.max(*counted);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PULL: &str =
    "From a pod's assignment to a node to its container's start: most of it pulls of images";

const NAMESPACE: &str = "namespace";
const OF_NODES: &str = "GPUs times seconds of runs that asked for nodes: `asked` by a pod, `held` by a node, `used` by \
                        a container; counted when each is over";
const OF_WHAT: [&str; 3] = ["asked", "held", "used"];

/// The revision, and the GPU-seconds of its nodes.
fn told(status: &FineTuneWorkspaceStatus) -> (Option<String>, GpuSeconds) {
    let capacity = status.capacity.as_ref();
    let seconds = capacity.map(|capacity| capacity.gpu_seconds.clone()).unwrap_or_default();
    (status.revision.clone(), seconds)
}

fn key(workspace: &FineTuneWorkspace) -> Option<Key> {
    Some((workspace.metadata.namespace.clone()?, workspace.metadata.name.clone()?))
}

#[cfg(test)]
mod tests;
