//! Where a workspace is in its life, computed from what was seen and from nothing else.

use api::condition::Reason;
use api::termination::Stage;
use api::workspace::{AdapterStatus, GateStatus};
use api::{Fault, Termination, Workspace};
use k8s_openapi::api::batch::v1::Job;

use crate::admit;
use crate::end::{self, Again, End};
use crate::gate;
use crate::names;
use crate::nodes::{self, NoPlace, Placement};
use crate::observed::{Observed, RegistryAnswer};
use crate::seen::{self, JobState, Seen};
use crate::stall;
use crate::trouble::{self, Trouble};

/// Where a workspace is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Nothing can run until the user does something.
    Rejected {
        reason: Reason,
        faults: Vec<Fault>,
    },
    /// No pod may run, because the user says so.
    Suspended,
    /// The preflight pod is to run, or runs.
    Preflight {
        trouble: Option<Trouble>,
    },
    /// The training Job waits for admission.
    Queued,
    /// There can be no nodes for the run as things are in this cluster.
    NoNodes {
        trouble: Trouble,
    },
    /// The training Job is admitted, and its pod does not run yet.
    Provisioning {
        trouble: Option<Trouble>,
    },
    /// A training Job was killed or ran out of memory; another one is to follow.
    Retrying {
        after: End,
    },
    Training,
    /// The trainer shows no sign of work, and its Job is being ended.
    Ending {
        end: End,
    },
    Evaluating,
    /// The trainer pushes, or the registry is asked.
    Publishing {
        trouble: Option<Trouble>,
    },
    Succeeded {
        adapter: AdapterStatus,
        /// What `evaluation.gate` says of it, where there is one.
        gate: Option<GateStatus>,
    },
    Failed {
        end: End,
    },
}

/// The phase of a valid workspace.
pub(crate) fn phase(workspace: &Workspace, seen: &Seen<'_>, observed: &Observed) -> Phase {
    if workspace.suspend && !has_ended(seen) {
        return Phase::Suspended;
    }
    if seen.trainings.is_empty() {
        let faults = admit::secrets(workspace, observed);
        if !faults.is_empty() && seen.preflight.is_none_or(|job| !is_over(job)) {
            return Phase::Rejected { reason: Reason::InvalidSecret, faults };
        }
    }
    match (seen.preflight, seen.trainings.last()) {
        (None, None) => Phase::Preflight { trouble: None },
        (Some(preflight), None) => preflight_phase(workspace, preflight, seen, observed),
        (_, Some(training)) => training_phase(workspace, training, seen, observed),
    }
}

/// A run is not queued where there can be no nodes for it, and what the scheduler cannot know is told.
pub(crate) fn with_nodes(
    phase: Phase,
    placed: Option<&Result<Placement<'_>, NoPlace>>,
    observed: &Observed,
) -> Phase {
    match (phase, placed) {
        (Phase::Queued | Phase::Retrying { .. }, Some(Err(NoPlace::TooSmall(fault)))) => {
            Phase::Rejected { reason: Reason::NoGpuFits, faults: vec![fault.clone()] }
        }
        (Phase::Queued | Phase::Retrying { .. }, Some(Err(NoPlace::Missing(trouble)))) => {
            Phase::NoNodes { trouble: trouble.clone() }
        }
        (Phase::Provisioning { trouble }, Some(Ok(placement))) => {
            let nodes = observed.gpu_nodes.as_deref();
            let never = nodes.and_then(|nodes| nodes::never_fits(placement, nodes));
            Phase::Provisioning { trouble: never.or(trouble) }
        }
        (phase, _) => phase,
    }
}

fn is_over(job: &Job) -> bool {
    matches!(seen::state(job), JobState::Complete | JobState::Failed(_))
}

/// Whether the last training has ended: there is nothing to suspend then.
fn has_ended(seen: &Seen<'_>) -> bool {
    seen.trainings.last().is_some_and(|job| is_over(job))
}

fn preflight_phase(
    workspace: &Workspace,
    job: &Job,
    seen: &Seen<'_>,
    observed: &Observed,
) -> Phase {
    match seen::state(job) {
        JobState::Suspended | JobState::Active => {
            waiting(job, seen, observed, |trouble| Phase::Preflight { trouble })
        }
        JobState::Complete => Phase::Queued,
        JobState::Failed(_) if seen.is_behind(job) => Phase::Preflight { trouble: None },
        JobState::Failed(condition) => {
            Phase::Failed { end: end::job_end(&workspace.limits, seen, job, condition) }
        }
    }
}

fn training_phase(workspace: &Workspace, job: &Job, seen: &Seen<'_>, observed: &Observed) -> Phase {
    match seen::state(job) {
        JobState::Suspended => Phase::Queued,
        JobState::Active if stall::is_marked(job) => {
            Phase::Ending { end: stall::end(workspace.limits.stall) }
        }
        JobState::Active => active(workspace, job, seen, observed),
        JobState::Complete => published(workspace, job, seen, observed),
        JobState::Failed(_) if seen.is_behind(job) => Phase::Training,
        JobState::Failed(condition) => {
            let end = end::job_end(&workspace.limits, seen, job, condition);
            if end.again != Again::No && names::number(job) < workspace.limits.retries {
                Phase::Retrying { after: end }
            } else {
                Phase::Failed { end }
            }
        }
    }
}

/// What the trainer says that it does, or what it said last; before its first word it trains.
fn active(workspace: &Workspace, job: &Job, seen: &Seen<'_>, observed: &Observed) -> Phase {
    if seen.pods(job).last().is_some_and(|pod| seen::phase(pod) == "Succeeded") {
        // The Job controller will say so in a moment.
        return Phase::Publishing { trouble: None };
    }
    let Some(pod) = seen.live_pod(job).filter(|pod| seen::phase(pod) == "Running") else {
        return waiting(job, seen, observed, |trouble| Phase::Provisioning { trouble });
    };
    if stall::stalls(workspace, observed) {
        return Phase::Ending { end: stall::end(workspace.limits.stall) };
    }
    match observed.trainer.as_ref().map_or_else(|| seen.said_last(pod), |said| said.stage) {
        Stage::Loading | Stage::Training => Phase::Training,
        Stage::Evaluating => Phase::Evaluating,
        Stage::Publishing => Phase::Publishing { trouble: None },
    }
}

/// A phase with what holds the pod up, or the failure that it became by lasting too long.
fn waiting(
    job: &Job,
    seen: &Seen<'_>,
    observed: &Observed,
    phase: impl FnOnce(Option<Trouble>) -> Phase,
) -> Phase {
    let trouble = trouble::of(job, seen, observed);
    match trouble {
        Some(trouble) if trouble.is_final => Phase::Failed { end: trouble.into() },
        trouble => phase(trouble),
    }
}

/// The Job is complete: the registry has the last word.
fn published(workspace: &Workspace, job: &Job, seen: &Seen<'_>, observed: &Observed) -> Phase {
    let report = report(job, seen).unwrap_or_default();
    let Some(adapter) = report.adapter else {
        let message = "the trainer ended well and named no adapter";
        let hint = "see the pod's log, and report it: this is a mistake in Anneal";
        return Phase::Failed { end: End::last(Reason::InternalError, message, hint) };
    };
    match &observed.registry {
        RegistryAnswer::Found => {
            let gate = workspace.evaluation.gate.as_ref();
            let gate = gate.map(|gate| gate::judge(gate, &report.evaluation));
            Phase::Succeeded { adapter, gate }
        }
        RegistryAnswer::NotAsked => Phase::Publishing { trouble: None },
        RegistryAnswer::Missing => Phase::Failed {
            end: End::last(
                Reason::AdapterMissing,
                format!("the registry does not have {}@{}", adapter.image, adapter.digest),
                "see whether the registry deletes images, then edit the workspace to run it again",
            ),
        },
        RegistryAnswer::Unreachable(why) => Phase::Publishing {
            trouble: Some(Trouble {
                reason: Reason::RegistryUnreachable,
                message: format!("cannot ask for {}@{}: {why}", adapter.image, adapter.digest),
                hint: "check the registry; the operator asks again".to_owned(),
                is_final: false,
            }),
        },
    }
}

/// The termination message of a Job's pod that ended well.
pub(crate) fn report(job: &Job, seen: &Seen<'_>) -> Option<Termination> {
    let pods = seen.pods(job);
    let last = pods.into_iter().rev().find_map(|pod| {
        let terminated = seen::terminated(pod)?;
        (terminated.exit_code == 0).then_some(terminated.message.as_deref()?)
    });
    last.and_then(Termination::from_message)
}
