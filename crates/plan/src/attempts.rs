//! What the status remembers of every start of the training.

use api::Termination;
use api::condition::Reason;
use api::workspace::Attempt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use crate::end;
use crate::observed::Observed;
use crate::phase::Phase;
use crate::seen::{self, JobState, Seen, state};
use crate::stall;

/// How many are remembered: those of a run that is preempted for weeks would fill the status.
const MOST: usize = 50;
/// Outcome of an attempt whose pod was taken away because the user holds the run.
const SUSPENDED: &str = "Suspended";

/// Attempts whose pods are there, after those that are remembered.
pub(crate) fn attempts(
    kept: Vec<Attempt>,
    phase: &Phase,
    seen: &Seen<'_>,
    observed: &Observed,
) -> Vec<Attempt> {
    let mut all = kept;
    for pod in seen.trainings.iter().flat_map(|job| seen.pods(job)) {
        let mut attempt = of_pod(pod, seen);
        let known = all.iter_mut().find(|known| known.pod == attempt.pod);
        // Of all pods only one runs: it is the one that was asked.
        let asked = observed.trainer.as_ref().filter(|_| attempt.outcome == "Running");
        let told = asked.and_then(|trainer| trainer.resumed_from).or(attempt.resumed_from);
        attempt.resumed_from = told.or(known.as_ref().and_then(|known| known.resumed_from));
        match known {
            // It is more than what the pod says; the events that told it are gone after a while.
            Some(known) if known.outcome == Reason::TrainerStalled.as_str() => {}
            Some(known) => *known = attempt,
            None => all.push(attempt),
        }
    }
    let is_there =
        |name: &str| observed.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name));
    let is_over = |attempt: &Attempt| {
        let job = job_of(&attempt.pod, seen);
        !has_ended(attempt) && !is_there(&attempt.pod) && !job.is_some_and(is_ending)
    };
    for attempt in all.iter_mut().filter(|attempt| is_over(attempt)) {
        let (outcome, message) = of_job(&attempt.pod, phase, seen);
        attempt.outcome = outcome;
        attempt.message = message;
        attempt.end = Some(observed.now.clone());
    }
    let surplus = all.len().saturating_sub(MOST);
    all.split_off(surplus)
}

/// Whether the outcome is more than a pod's phase.
pub(crate) fn has_ended(attempt: &Attempt) -> bool {
    !matches!(attempt.outcome.as_str(), "Pending" | "Running" | "Unknown" | "")
}

fn of_pod(pod: &Pod, seen: &Seen<'_>) -> Attempt {
    let terminated = seen::terminated(pod);
    let report = terminated.and_then(|ended| ended.message.as_deref());
    let report = report.and_then(Termination::from_message);
    let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
    let (outcome, message) = match (terminated, seen::phase(pod)) {
        (Some(ended), _) if ended.exit_code == 0 => (Reason::Succeeded.to_string(), None),
        (Some(_), _) | (None, "Failed") => {
            let end = end::pod_end(pod, seen);
            (end.reason.to_string(), Some(end.message))
        }
        (None, phase) => (phase.to_owned(), None),
    };
    Attempt {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        start: started,
        end: terminated.and_then(|ended| ended.finished_at.clone()),
        resumed_from: report.and_then(|report| report.resumed_from),
        outcome,
        message,
    }
}

/// How an attempt ended whose pod left nothing: by what its Job says.
fn of_job(pod: &str, phase: &Phase, seen: &Seen<'_>) -> (String, Option<String>) {
    let job = job_of(pod, seen);
    let gone = || "the pod is gone, and left no word".to_owned();
    if let Some(stalled) = job.and_then(stall::word) {
        return (Reason::TrainerStalled.to_string(), Some(stalled));
    }
    match (job.map(state), phase) {
        (_, Phase::Suspended) | (Some(JobState::Suspended), _) => (SUSPENDED.to_owned(), None),
        (_, Phase::Failed { end } | Phase::Retrying { after: end } | Phase::Ending { end }) => {
            (end.reason.to_string(), Some(end.message.clone()))
        }
        _ => (Reason::Interrupted.to_string(), Some(gone())),
    }
}

/// The Job whose pod has this name.
fn job_of<'a>(pod: &str, seen: &Seen<'a>) -> Option<&'a Job> {
    let is_of = |job: &&&Job| {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    };
    seen.trainings.iter().find(is_of).copied()
}

/// Whether the Job controller takes the pods away, and will say why in a moment.
fn is_ending(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref());
    let ends = conditions.unwrap_or_default().iter().any(|one| one.type_ == "FailureTarget");
    ends && state(job) == JobState::Active
}
