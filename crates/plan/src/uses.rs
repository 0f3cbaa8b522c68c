//! What the status says of a run's nodes: which were chosen and why, what each pod had of them and for
//! how long, and the GPU-seconds that come of it. Sums are of what is over, so that a run at rest writes
//! nothing.

use std::collections::BTreeSet;

use api::Termination;
use api::workspace::{CapacityStatus, GpuSeconds, NodeUse, PhaseSeconds, Provisioner};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::names::{POOL, Run};
use crate::observed::Observed;
use crate::phase::Phase;
use crate::render::{Context, Wish};
use crate::seen::{self, JobState, Seen, state};

/// How many uses are remembered.
const MOST: usize = 50;
const TYPE: &str = "node.kubernetes.io/instance-type";

/// The capacity of a run that asks for nodes.
pub(crate) fn capacity(context: &Context<'_>, phase: &Phase, wish: Wish) -> Option<CapacityStatus> {
    let (run, seen, observed) = (context.run, context.seen, context.observed);
    let kept = run.kept().and_then(|status| status.capacity.clone());
    if context.workspace.compute.nodes.is_none() {
        return kept;
    }
    let mut all = kept.unwrap_or_default();
    chosen(&mut all, context);
    all.gpus = context.workspace.compute.gpus;
    let name = run.pool();
    let is_there = observed.pools.iter().any(|pool| {
        pool.metadata.name.as_ref() == Some(&name) && pool.metadata.deletion_timestamp.is_none()
    });
    let makes = wish == Wish::Make && all.provisioner != Some(Provisioner::Existing);
    all.pool = (makes || is_there && wish == Wish::Keep).then_some(name);
    merge_all(&mut all, phase, seen, observed);
    all.seconds.queued = all.seconds.queued.max(queued(seen));
    let surplus = all.uses.len().saturating_sub(MOST);
    all.uses.drain(..surplus);
    let is_new = all == CapacityStatus { gpus: all.gpus, ..CapacityStatus::default() };
    released((!is_new).then_some(all), observed)
}

/// How often nodes were taken away from this revision, as of now: the next node is chosen by it.
pub(crate) fn interruptions(
    run: &Run<'_>,
    phase: &Phase,
    seen: &Seen<'_>,
    observed: &Observed,
) -> u32 {
    let mut all = run.kept().and_then(|status| status.capacity.clone()).unwrap_or_default();
    merge_all(&mut all, phase, seen, observed);
    all.interruptions
}

/// Adds what is seen of the training's pods, and of those that are gone.
fn merge_all(all: &mut CapacityStatus, phase: &Phase, seen: &Seen<'_>, observed: &Observed) {
    for pod in seen.trainings.iter().flat_map(|job| seen.pods(job)) {
        merge(all, pod);
    }
    end_lost(all, phase, seen, observed);
}

fn chosen(all: &mut CapacityStatus, context: &Context<'_>) {
    // Before preflight has told what the run needs, nothing is chosen.
    let Some(placement) = context.placement.filter(|one| one.needs > 0) else { return };
    let mut names = placement.products.iter().map(|product| product.name.clone());
    all.provisioner = Some(placement.provisioner);
    all.product = names.next();
    all.runners_up = names.collect();
    all.reason = Some(placement.reason.clone());
    let makes = matches!(placement.provisioner, Provisioner::Karpenter | Provisioner::Gke);
    all.capacity_type = makes.then_some(placement.capacity_type);
}

fn merge(all: &mut CapacityStatus, pod: &Pod) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let index = all.uses.iter().position(|one| one.pod == name).unwrap_or_else(|| {
        all.uses.push(NodeUse { pod: name, gpus: all.gpus, ..NodeUse::default() });
        all.uses.len() - 1
    });
    let was_interrupted = all.uses[index].interrupted;
    let one = &mut all.uses[index];
    one.asked.clone_from(&pod.metadata.creation_timestamp);
    one.node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).or(one.node.take());
    one.scheduled = scheduled(pod).or(one.scheduled.take());
    let container = seen::container(pod);
    let running = container.and_then(|state| state.running.as_ref()?.started_at.clone());
    let ended = seen::terminated(pod);
    let started = ended.and_then(|ended| ended.started_at.clone()).or(running);
    one.started = started.or(one.started.take());
    one.ended = ended.and_then(|ended| ended.finished_at.clone()).or(one.ended.take());
    let report = ended.and_then(|ended| Termination::from_message(ended.message.as_deref()?));
    let push = report.and_then(|report| report.push_seconds);
    one.publishing = push.map(|seconds| seconds as u64).or(one.publishing);
    let is_over = matches!(seen::phase(pod), "Succeeded" | "Failed");
    one.interrupted |= is_disrupted(pod) && one.node.is_some() && seen::phase(pod) != "Succeeded";
    if is_over && one.ended.is_none() {
        one.ended = one.scheduled.clone().or(one.asked.clone());
    }
    all.interruptions += u32::from(one.interrupted && !was_interrupted);
}

/// Uses whose pod is gone without a word: the node was taken away, unless the run was held.
fn end_lost(all: &mut CapacityStatus, phase: &Phase, seen: &Seen<'_>, observed: &Observed) {
    let is_there =
        |name: &str| observed.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name));
    let runs = seen.trainings.last().is_some_and(|job| state(job) == JobState::Active);
    let is_held = matches!(phase, Phase::Suspended | Phase::Ending { .. } | Phase::Failed { .. });
    for one in all.uses.iter_mut().filter(|one| one.ended.is_none() && !is_there(&one.pod)) {
        one.ended = Some(observed.now.clone());
        let is_interrupted = runs && !is_held && one.node.is_some();
        all.interruptions += u32::from(is_interrupted && !one.interrupted);
        one.interrupted |= is_interrupted;
    }
}

fn is_disrupted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let all = conditions.unwrap_or_default();
    all.iter().any(|one| one.type_ == "DisruptionTarget" && one.status == "True")
}

fn scheduled(pod: &Pod) -> Option<Time> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let condition = conditions.iter().find(|one| one.type_ == "PodScheduled")?;
    (condition.status == "True").then(|| condition.last_transition_time.clone())?
}

fn queued(seen: &Seen<'_>) -> u64 {
    let waits = seen.trainings.iter().filter_map(|job| {
        let admitted = job.status.as_ref()?.start_time.as_ref()?;
        Some(between(job.metadata.creation_timestamp.as_ref(), Some(admitted)))
    });
    waits.sum()
}

/// Nodes that the run used and may still hold, and those of its pods.
pub(crate) fn nodes(run: &Run<'_>, seen: &Seen<'_>) -> BTreeSet<String> {
    let asks = run.raw.spec.compute.as_ref().is_some_and(|compute| compute.nodes.is_some());
    let capacity = run.kept().and_then(|status| status.capacity.as_ref()).filter(|_| asks);
    let uses = capacity.into_iter().flat_map(|capacity| &capacity.uses);
    let held = uses.filter(|one| one.released.is_none()).filter_map(|one| one.node.clone());
    let pods = seen.trainings.iter().flat_map(|job| seen.pods(job)).filter(|_| asks);
    held.chain(pods.filter_map(|pod| pod.spec.as_ref()?.node_name.clone())).collect()
}

/// Whether a node that was made for the run is there yet.
pub(crate) fn holds(all: &CapacityStatus) -> bool {
    all.uses.iter().any(|one| one.held.is_some() && one.released.is_none())
}

/// With what was seen of the nodes, and the sums.
pub(crate) fn released(
    capacity: Option<CapacityStatus>,
    observed: &Observed,
) -> Option<CapacityStatus> {
    let mut all = capacity?;
    let is_there =
        |pool: &String| observed.pools.iter().any(|one| one.metadata.name.as_ref() == Some(pool));
    if observed.pools.is_empty() && all.uses.last().is_some_and(|one| one.ended.is_some()) {
        all.pool = all.pool.filter(is_there);
    }
    for one in all.uses.iter_mut().filter(|one| one.released.is_none()) {
        let Some(node) = &one.node else { continue };
        match observed.nodes.get(node) {
            Some(Some(facts)) => {
                one.instance_type = facts.labels.get(TYPE).cloned();
                if facts.labels.contains_key(POOL) {
                    one.held.clone_from(&facts.created);
                    one.gpus = facts.gpus.max(all.gpus);
                }
            }
            Some(None) => one.released = Some(observed.now.clone()),
            None => {}
        }
    }
    sum(&mut all);
    Some(all)
}

fn sum(all: &mut CapacityStatus) {
    let mut seconds = PhaseSeconds { queued: all.seconds.queued, ..PhaseSeconds::default() };
    let mut gpu = GpuSeconds::default();
    let gpus = u64::from(all.gpus);
    for (index, one) in all.uses.iter().enumerate() {
        // A node that later pods were on too is counted with the last of them.
        let is_shared = all.uses[index + 1..].iter().any(|later| later.node == one.node);
        let ran = between(one.started.as_ref(), one.ended.as_ref());
        let pushed = one.publishing.unwrap_or_default().min(ran);
        seconds.provisioning += between(one.asked.as_ref(), one.scheduled.as_ref());
        seconds.pulling += between(one.scheduled.as_ref(), one.started.as_ref());
        seconds.training += ran - pushed;
        seconds.publishing += pushed;
        gpu.asked += gpus * between(one.asked.as_ref(), one.ended.as_ref());
        gpu.used += gpus * ran;
        gpu.held += match (&one.held, &one.released) {
            (Some(_), _) if is_shared => 0,
            (Some(held), released) => u64::from(one.gpus) * between(Some(held), released.as_ref()),
            (None, _) => gpus * between(one.scheduled.as_ref(), one.ended.as_ref()),
        };
    }
    (all.seconds, all.gpu_seconds) = (seconds, gpu);
}

/// Whole seconds from one moment to another, where both are known.
fn between(from: Option<&Time>, to: Option<&Time>) -> u64 {
    let span = from.zip(to).map(|(from, to)| to.0.duration_since(from.0).as_secs());
    span.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default()
}
