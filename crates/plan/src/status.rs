//! What the workspace's status says: phase, conditions, progress, attempts.

use api::condition::{COMPLETE, FAILED, READY, RECONCILING, Reason, STALLED, SUSPENDED};
use api::workspace::{Attempt, FineTuneWorkspaceStatus, Phase as Word, Progress};
use api::{Fault, FineTuneWorkspace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::end;
use crate::observed::Observed;
use crate::phase::{Phase, report};
use crate::seen::{self, Seen};

/// Most characters of a condition's message.
const MOST: usize = 1024;

/// The whole status. What an earlier pass saw and is gone by now is kept.
pub(crate) fn status(
    raw: &FineTuneWorkspace,
    revision: Option<&str>,
    phase: &Phase,
    seen: Option<&Seen<'_>>,
    observed: &Observed,
) -> FineTuneWorkspaceStatus {
    let old = raw.status.clone().unwrap_or_default();
    let same_run = old.revision.as_deref() == revision;
    let kept = if same_run { old.clone() } else { FineTuneWorkspaceStatus::default() };
    let preflight = seen.and_then(|seen| report(seen.preflight?, seen));
    let training = seen.and_then(|seen| report(seen.trainings.last().copied()?, seen));
    let told = observed.trainer.as_ref().and_then(|trainer| trainer.progress.clone());
    let last = training.as_ref().and_then(|report| report.progress.clone());
    FineTuneWorkspaceStatus {
        observed_generation: raw.metadata.generation,
        revision: revision.map(str::to_owned),
        phase: Some(word(phase)),
        conditions: conditions(phase, &old.conditions, raw.metadata.generation, &observed.now),
        progress: last.or(told).or(kept.progress).map(rounded),
        resolved: preflight.and_then(|report| report.resolved).or(kept.resolved),
        evaluation: training.map_or(kept.evaluation, |report| report.evaluation),
        adapter: match phase {
            Phase::Succeeded { adapter } => Some(adapter.clone()),
            _ => None,
        },
        attempts: attempts(kept.attempts, seen),
    }
}

/// The phase's name.
fn word(phase: &Phase) -> Word {
    match phase {
        Phase::Rejected { .. } => Word::Rejected,
        Phase::Suspended => Word::Suspended,
        Phase::Preflight { .. } => Word::Preflight,
        Phase::Queued => Word::Queued,
        Phase::Provisioning { .. } | Phase::Retrying { .. } => Word::Provisioning,
        Phase::Training => Word::Training,
        Phase::Evaluating => Word::Evaluating,
        Phase::Publishing { .. } => Word::Publishing,
        Phase::Succeeded { .. } => Word::Succeeded,
        Phase::Failed { .. } => Word::Failed,
    }
}

/// Why a phase is what it is, and in a sentence.
pub(crate) fn reason(phase: &Phase) -> (Reason, String) {
    let hinted = |message: &str, hint: Option<&str>| match hint {
        Some(hint) => format!("{message}; next: {hint}"),
        None => message.to_owned(),
    };
    match phase {
        Phase::Rejected { reason, faults } => (*reason, list(faults)),
        Phase::Suspended => (Reason::SuspendedByUser, "spec.suspend is true".to_owned()),
        Phase::Preflight { trouble: None } => {
            (Reason::PreflightRunning, "reading model and data, and asking the registry".to_owned())
        }
        Phase::Queued => {
            (Reason::AwaitingAdmission, "the job is suspended until it may run".to_owned())
        }
        Phase::Provisioning { trouble: None } => {
            (Reason::Starting, "waiting for the training pod to start".to_owned())
        }
        Phase::Preflight { trouble: Some(trouble) }
        | Phase::Provisioning { trouble: Some(trouble) }
        | Phase::Publishing { trouble: Some(trouble) } => {
            (trouble.reason, hinted(&trouble.message, Some(&trouble.hint)))
        }
        Phase::Retrying { after } => {
            (Reason::Retrying, format!("another attempt follows: {}", after.message))
        }
        Phase::Training => (Reason::Training, "the training runs".to_owned()),
        Phase::Evaluating => {
            (Reason::Evaluating, "scoring the test examples, base and tuned".to_owned())
        }
        Phase::Publishing { trouble: None } => {
            (Reason::Publishing, "the adapter is being published".to_owned())
        }
        Phase::Succeeded { adapter } => {
            (Reason::Succeeded, format!("published {}@{}", adapter.image, adapter.digest))
        }
        Phase::Failed { end } => (end.reason, hinted(&end.message, end.hint.as_deref())),
    }
}

/// Every fault on a line of its own, with its hint.
fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> =
        faults.iter().map(|fault| fault.to_string().replace("\n  hint: ", "; next: ")).collect();
    lines.join("\n")
}

fn conditions(
    phase: &Phase,
    old: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let (reason, message) = reason(phase);
    let message: String = message.chars().take(MOST).collect();
    let is_ready = matches!(phase, Phase::Succeeded { .. });
    let has_failed = matches!(phase, Phase::Failed { .. });
    let is_stalled = has_failed || matches!(phase, Phase::Rejected { .. });
    let is_suspended = matches!(phase, Phase::Suspended);
    let is_at_work = !(is_ready || is_stalled || is_suspended);
    [
        (READY, is_ready),
        (RECONCILING, is_at_work),
        (STALLED, is_stalled),
        (COMPLETE, is_ready),
        (FAILED, has_failed),
        (SUSPENDED, is_suspended),
    ]
    .into_iter()
    .map(|(type_, holds)| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == type_);
        let since = before.filter(|condition| condition.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: generation,
            reason: reason.as_str().to_owned(),
            // What does not hold has the reason of what does; one message is enough.
            message: if holds || type_ == READY { message.clone() } else { String::new() },
            last_transition_time: since
                .map_or(now, |condition| &condition.last_transition_time)
                .clone(),
        }
    })
    .collect()
}

/// Attempts whose pods are there, after those that are remembered.
fn attempts(mut kept: Vec<Attempt>, seen: Option<&Seen<'_>>) -> Vec<Attempt> {
    let Some(seen) = seen else { return kept };
    for pod in seen.trainings.iter().flat_map(|job| seen.pods(job)) {
        let terminated = seen::terminated(pod);
        let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
        let (outcome, message) = match (terminated, seen::phase(pod)) {
            (Some(ended), _) if ended.exit_code == 0 => (Reason::Succeeded.to_string(), None),
            (Some(_), _) | (None, "Failed") => {
                let end = end::pod_end(pod);
                (end.reason.to_string(), Some(end.message))
            }
            (None, phase) => (phase.to_owned(), None),
        };
        let attempt = Attempt {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            start: started,
            end: terminated.and_then(|ended| ended.finished_at.clone()),
            outcome,
            message,
        };
        match kept.iter_mut().find(|known| known.pod == attempt.pod) {
            Some(known) => *known = attempt,
            None => kept.push(attempt),
        }
    }
    kept
}

/// Progress with the digits that a person reads, so that a status of the same meaning is the same.
fn rounded(progress: Progress) -> Progress {
    let round = |value: f64, factor: f64| (value * factor).round() / factor;
    Progress {
        train_loss: progress.train_loss.map(|loss| round(loss, 1e4)),
        valid_loss: progress.valid_loss.map(|loss| round(loss, 1e4)),
        tokens_per_second: progress.tokens_per_second.map(f64::round),
        ..progress
    }
}
