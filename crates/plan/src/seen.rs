//! The observed objects of one revision, put in order.

use std::collections::{BTreeMap, BTreeSet};

use api::FineTuneWorkspace;
use api::condition::Reason;
use api::termination::Stage;
use api::workspace::Phase;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod};

use crate::names::{self, Role, Run, label};
use crate::observed::Observed;

/// Jobs and pods of the current revision; what is being deleted counts as gone.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) preflight: Option<&'a Job>,
    /// In the order in which they were made. All but the last one have ended.
    pub(crate) trainings: Vec<&'a Job>,
    pods: Vec<&'a Pod>,
    /// Why the kubelet killed some of them.
    killings: &'a BTreeMap<String, String>,
    /// What the status remembers of those whose trainer showed no sign of work.
    stalled: BTreeSet<&'a str>,
    /// What the status tells of the newest pod: its name, and the phase.
    last: Option<(&'a str, Phase)>,
}

/// How a Job stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum JobState<'a> {
    Suspended,
    Active,
    Complete,
    Failed(&'a JobCondition),
}

impl<'a> Seen<'a> {
    pub(crate) fn new(run: &Run<'a>, observed: &'a Observed) -> Self {
        let of_run = |role: Role| {
            observed.jobs.iter().filter(move |job| {
                label(&job.metadata, names::REVISION) == Some(&run.revision)
                    && label(&job.metadata, names::ROLE) == Some(role.as_str())
                    && job.metadata.deletion_timestamp.is_none()
            })
        };
        let mut trainings: Vec<&Job> = of_run(Role::Train).collect();
        trainings.sort_by_key(|job| names::number(job));
        Self {
            preflight: of_run(Role::Preflight).next(),
            trainings,
            pods: observed.pods.iter().collect(),
            killings: &observed.killings,
            stalled: stalled(run.raw),
            last: last(run.raw, &run.revision),
        }
    }

    /// What the trainer in this pod was at when it was last heard: one that is about to end is asked in vain.
    pub(crate) fn said_last(&self, pod: &Pod) -> Stage {
        let of_pod = self.last.filter(|(name, _)| pod.metadata.name.as_deref() == Some(name));
        match of_pod {
            Some((_, Phase::Evaluating)) => Stage::Evaluating,
            Some((_, Phase::Publishing)) => Stage::Publishing,
            _ => Stage::default(),
        }
    }

    /// The pods of a job, the oldest first.
    pub(crate) fn pods(&self, job: &Job) -> Vec<&'a Pod> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let owned = |pod: &&&Pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == uid)
        };
        let mut pods: Vec<&Pod> = self.pods.iter().filter(owned).copied().collect();
        pods.sort_by_key(|pod| {
            (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone())
        });
        pods
    }

    /// How often the training was started anew before the last Job, and the last one itself.
    pub(crate) fn last_training(&self) -> Option<(u32, &'a Job)> {
        self.trainings.last().map(|job| (names::number(job), *job))
    }

    /// Whether the kubelet killed a pod since its trainer did not answer. The events that tell so are gone after
    /// a while; what the status said then stays true.
    pub(crate) fn was_silent(&self, pod: &Pod) -> bool {
        let Some(name) = pod.metadata.name.as_deref() else { return false };
        let told = self.killings.get(name);
        self.stalled.contains(name)
            || told.is_some_and(|word| word.contains("Liveness probe failed"))
    }

    /// The Job that was made last.
    pub(crate) fn last_job(&self) -> Option<&'a Job> {
        self.trainings.last().copied().or(self.preflight)
    }

    /// Whether what is known of a failed Job's pods is older than what is known of the Job: it fails once its
    /// pods have ended, and none has. Their caches are filled by watches that know nothing of each other.
    pub(crate) fn is_behind(&self, job: &Job) -> bool {
        let pods = self.pods(job);
        let runs =
            |pod: &&Pod| !matches!(phase(pod), "Succeeded" | "Failed") && terminated(pod).is_none();
        !pods.is_empty() && pods.iter().all(runs)
    }

    /// The pod that runs or is about to.
    pub(crate) fn live_pod(&self, job: &Job) -> Option<&'a Pod> {
        let pods = self.pods(job);
        pods.into_iter().rev().find(|pod| !matches!(phase(pod), "Succeeded" | "Failed"))
    }
}

fn last<'a>(raw: &'a FineTuneWorkspace, revision: &str) -> Option<(&'a str, Phase)> {
    let status = raw.status.as_ref();
    let status = status.filter(|status| status.revision.as_deref() == Some(revision))?;
    Some((status.attempts.last()?.pod.as_str(), status.phase?))
}

fn stalled(raw: &FineTuneWorkspace) -> BTreeSet<&str> {
    let attempts = raw.status.iter().flat_map(|status| &status.attempts);
    let stalled = attempts.filter(|one| one.outcome == Reason::TrainerStalled.as_str());
    stalled.map(|attempt| attempt.pod.as_str()).collect()
}

/// How a Job stands, from its conditions.
pub(crate) fn state(job: &Job) -> JobState<'_> {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let holds = |wanted: &str| {
        conditions.iter().find(|condition| condition.type_ == wanted && condition.status == "True")
    };
    // `FailureTarget` comes before `Failed`, while pods are still ending.
    if let Some(failed) = holds("Failed") {
        JobState::Failed(failed)
    } else if holds("Complete").is_some() {
        JobState::Complete
    } else if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
        JobState::Suspended
    } else {
        JobState::Active
    }
}

/// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`, or nothing yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The state of the pod's one container.
pub(crate) fn container(pod: &Pod) -> Option<&ContainerState> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()
}

/// How the pod's one container ended.
pub(crate) fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container(pod)?.terminated.as_ref()
}
