//! Why a pod or a Job ended, and whether another start may help.

use api::Termination;
use api::condition::Reason;
use api::termination::exit_code;
use api::valid::Limits;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;

use crate::seen::{self, Seen};
use crate::stall;

/// How something ended that did not succeed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) again: Again,
}

/// Whether another Job may succeed. What a Job tries again by itself has been tried when this is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    Unchanged,
    /// With half the micro-batch.
    Halved,
}

impl End {
    pub(crate) fn last(
        reason: Reason,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { reason, message: message.into(), hint: Some(hint.into()), again: Again::No }
    }
}

/// Why a Job failed: the deadline, or what its last pod says.
pub(crate) fn job_end(
    limits: &Limits,
    seen: &Seen<'_>,
    job: &Job,
    condition: &JobCondition,
) -> End {
    if stall::is_marked(job) {
        return stall::end(limits.stall);
    }
    if condition.reason.as_deref() == Some("DeadlineExceeded") {
        return End::last(
            Reason::DeadlineExceeded,
            "the run took longer than `limits.deadline`",
            "raise limits.deadline, which also runs it again, or lower hyperparameters.epochs",
        );
    }
    let failed = seen.pods(job).into_iter().rev().find(|pod| seen::terminated(pod).is_some());
    failed.map_or_else(
        || {
            let why = condition.message.as_deref().unwrap_or("it gives no reason");
            let message = format!("the job failed and left no pod: {why}");
            End::last(Reason::Interrupted, message, "edit the workspace to run it again")
        },
        |pod| pod_end(pod, seen),
    )
}

/// Whether the trainer got SIGKILL, and not for its memory.
pub(crate) fn is_killed(pod: &Pod) -> bool {
    seen::terminated(pod).is_some_and(|ended| {
        ended.exit_code == exit_code::KILLED && ended.reason.as_deref() != Some("OOMKilled")
    })
}

/// Why a pod ended, from its termination message and exit code, and from the kubelet's word where it killed
/// the trainer.
pub(crate) fn pod_end(pod: &Pod, seen: &Seen<'_>) -> End {
    if is_killed(pod) && seen.was_silent(pod) {
        return stall::silent();
    }
    let Some(terminated) = seen::terminated(pod) else {
        return evicted(pod);
    };
    let said = terminated.message.as_deref();
    let report = said.and_then(Termination::from_message);
    let killed_for_memory = terminated.reason.as_deref() == Some("OOMKilled");
    let (reason, message, hint) = if killed_for_memory {
        (Reason::OutOfMemory, "the container used more memory than its limit", MEMORY_HINT)
    } else {
        by_exit_code(terminated.exit_code)
    };
    let message = match &report {
        Some(report) if !report.faults.is_empty() => faults(report),
        Some(report) if !report.message.is_empty() => report.message.clone(),
        Some(_) | None if killed_for_memory || terminated.exit_code == exit_code::KILLED => {
            message.to_owned()
        }
        // Not the trainer's own words, but the end of its log.
        Some(_) | None => {
            said.map_or(message.to_owned(), |log| format!("{message}: {}", tail(log)))
        }
    };
    let hint = report.and_then(|report| report.hint).or(Some(hint.to_owned()));
    let again = match (reason, terminated.exit_code) {
        (Reason::OutOfMemory, _) => Again::Halved,
        (_, exit_code::KILLED) => Again::Unchanged,
        _ => Again::No,
    };
    End { reason, message, hint, again }
}

const MEMORY_HINT: &str = "raise compute.memory, or lower hyperparameters.microBatchTokens";

fn by_exit_code(code: i32) -> (Reason, &'static str, &'static str) {
    match code {
        exit_code::CONFIGURATION => {
            (Reason::InvalidData, "data or configuration cannot be trained on", "correct them")
        }
        exit_code::CREDENTIAL => (
            Reason::CredentialRefused,
            "a registry or hub refused the credential",
            "check output.pushSecret and the pull secrets",
        ),
        exit_code::OUT_OF_MEMORY => (Reason::OutOfMemory, "memory did not suffice", MEMORY_HINT),
        exit_code::IO => (
            Reason::InputOutputFailed,
            "input or output failed",
            "check registry, network and disk, then edit the workspace to run it again",
        ),
        exit_code::STOPPED => {
            (Reason::Interrupted, "the trainer was stopped", "see the pod's events for who did")
        }
        exit_code::KILLED => (
            Reason::Interrupted,
            "the trainer was killed: it hung, or the node did it",
            "see the pod's events, then edit the workspace to run it again",
        ),
        _ => (
            Reason::InternalError,
            "the trainer failed",
            "see the pod's log, and report it: this is a mistake in Anneal",
        ),
    }
}

fn evicted(pod: &Pod) -> End {
    let status = pod.status.as_ref();
    let why = status.and_then(|status| status.message.clone().or_else(|| status.reason.clone()));
    let why = why.unwrap_or_else(|| "the pod ended before its container started".to_owned());
    End::last(Reason::Interrupted, why, "see the pod's events")
}

/// The first faults, one a line, and how many there are.
fn faults(report: &Termination) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = report
        .faults
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .map(|text| unhinted(&text))
        .collect();
    let more = report.faults.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join("; "))
}

fn unhinted(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The end of a log, short enough for a condition.
fn tail(log: &str) -> String {
    const MOST: usize = 240;
    let line = log.trim().lines().next_back().unwrap_or_default();
    line.chars().take(MOST).collect()
}
