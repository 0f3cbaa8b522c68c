//! What Jobs and pods tell of how long things took. Plain data in, plain data out.

use api::Termination;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use plan::names::{ROLE, Role};

/// Something that took time, and is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fact {
    /// UID of the Job or pod that tells it.
    pub(super) object: String,
    pub(super) what: What,
    pub(super) seconds: f64,
}

impl Fact {
    /// Equal for the same thing seen twice.
    pub(super) fn id(&self) -> (String, What) {
        (self.object.clone(), self.what)
    }
}

/// What took the time. The words are values of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Queue,
    Provision,
    Pull(&'static str),
    Preflight(&'static str),
    Train(&'static str),
    Push,
}

pub(super) const ROLES: [&str; 2] = ["preflight", "train"];
pub(super) const OUTCOMES: [&str; 2] = ["succeeded", "failed"];

/// A training Job was admitted.
pub(super) fn of_job(job: &Job) -> Option<Fact> {
    let role = role(&job.metadata)?;
    let admitted = job.status.as_ref()?.start_time.as_ref()?;
    let created = job.metadata.creation_timestamp.as_ref()?;
    let waited = fact(&job.metadata, What::Queue, created, admitted)?;
    (role == Role::Train).then_some(waited)
}

/// A pod got a node, its container started, ran, and pushed.
pub(super) fn of_pod(pod: &Pod) -> Vec<Fact> {
    let Some(role) = role(&pod.metadata) else { return Vec::new() };
    let ended = terminated(pod);
    let placed = scheduled(pod).filter(|_| role == Role::Train).and_then(|to| {
        let from = pod.metadata.creation_timestamp.as_ref()?;
        fact(&pod.metadata, What::Provision, from, to)
    });
    let pulled = scheduled(pod).and_then(|from| {
        let what = What::Pull(ROLES[usize::from(role == Role::Train)]);
        fact(&pod.metadata, what, from, &started(pod)?)
    });
    let ran = ended.and_then(|ended| {
        let outcome = OUTCOMES[usize::from(ended.exit_code != 0)];
        let what = match role {
            Role::Preflight => What::Preflight(outcome),
            Role::Train => What::Train(outcome),
        };
        fact(&pod.metadata, what, ended.started_at.as_ref()?, ended.finished_at.as_ref()?)
    });
    let pushed = ended.and_then(|ended| {
        let report = Termination::from_message(ended.message.as_deref()?)?;
        let object = pod.metadata.uid.clone()?;
        Some(Fact { object, what: What::Push, seconds: report.push_seconds? })
    });
    [placed, pulled, ran, pushed].into_iter().flatten().collect()
}

/// GPUs that a pod holds or held.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) pod: String,
    pub(super) gpus: f64,
    pub(super) since: Timestamp,
    /// `None` while it holds them.
    pub(super) until: Option<Timestamp>,
}

/// From its assignment to a node to its end, a pod holds what it asked for.
pub(super) fn held(pod: &Pod, now: Timestamp) -> Option<Held> {
    let containers = pod.spec.as_ref()?.containers.iter();
    let limits = containers.filter_map(|one| one.resources.as_ref()?.limits.as_ref()).flatten();
    let counts = limits.filter(|(name, _)| name.ends_with("/gpu"));
    let gpus: f64 = counts.filter_map(|(_, count)| count.0.parse::<f64>().ok()).sum();
    let since = scheduled(pod)?.0;
    let phase = pod.status.as_ref()?.phase.as_deref();
    let finished = terminated(pod).and_then(|ended| ended.finished_at.as_ref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
    // An evicted pod does not say when it ended: it is over by now.
    let until = has_ended.then(|| finished.map_or(now, |at| at.0));
    let pod = pod.metadata.uid.clone()?;
    (gpus > 0.0).then_some(Held { pod, gpus, since, until })
}

fn role(metadata: &ObjectMeta) -> Option<Role> {
    let label = metadata.labels.as_ref()?.get(ROLE)?;
    [Role::Preflight, Role::Train].into_iter().find(|role| role.as_str() == label)
}

fn fact(metadata: &ObjectMeta, what: What, from: &Time, to: &Time) -> Option<Fact> {
    // Clocks of two machines may differ.
    let seconds = to.0.duration_since(from.0).as_secs_f64().max(0.0);
    Some(Fact { object: metadata.uid.clone()?, what, seconds })
}

/// When the pod was assigned to a node.
fn scheduled(pod: &Pod) -> Option<&Time> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let condition = conditions.iter().find(|one| one.type_ == "PodScheduled")?;
    (condition.status == "True").then_some(condition.last_transition_time.as_ref())?
}

fn started(pod: &Pod) -> Option<Time> {
    let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
    let running = state.running.as_ref().and_then(|running| running.started_at.clone());
    running.or_else(|| state.terminated.as_ref()?.started_at.clone())
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.first()?.state.as_ref()?.terminated.as_ref()
}
