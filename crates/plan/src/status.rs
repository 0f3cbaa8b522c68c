//! What the workspace's status says: phase, conditions, progress, attempts.

use api::condition::{
    COMPLETE, FAILED, GATE_PASSED, READY, RECONCILING, Reason, STALLED, SUSPENDED,
};
use api::workspace::{
    CapacityStatus, CheckpointStatus, FineTuneWorkspaceStatus, GateSpec, GateStatus, Phase as Word,
    Progress,
};
use api::{Fault, Termination};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::attempts::attempts;
use crate::gate;
use crate::names::Run;
use crate::observed::Observed;
use crate::phase::{Phase, report};
use crate::published::published;
use crate::seen::{self, Seen};

/// Most characters of a condition's message.
const MOST: usize = 1024;

/// The whole status. What an earlier pass saw and is gone by now is kept.
pub(crate) fn status(
    run: &Run<'_>,
    phase: &Phase,
    seen: &Seen<'_>,
    observed: &Observed,
    capacity: Option<CapacityStatus>,
) -> FineTuneWorkspaceStatus {
    let raw = run.raw;
    let old = raw.status.clone().unwrap_or_default();
    let same_run = old.revision.as_ref() == Some(&run.revision);
    let kept = if same_run { old.clone() } else { FineTuneWorkspaceStatus::default() };
    let preflight = seen.preflight.and_then(|job| report(job, seen));
    let training = seen.trainings.last().and_then(|job| report(job, seen));
    let told = observed.trainer.as_ref().and_then(|trainer| trainer.progress.clone());
    let last = training.as_ref().and_then(|report| report.progress.clone());
    FineTuneWorkspaceStatus {
        observed_generation: raw.metadata.generation,
        revision: Some(run.revision.clone()),
        phase: Some(word(phase)),
        conditions: conditions(phase, observed, &old.conditions, raw.metadata.generation),
        progress: last.or(told).or(kept.progress).map(|progress| shown(progress, phase)),
        resolved: preflight.and_then(|report| report.resolved).or(kept.resolved),
        evaluation: training.map_or(kept.evaluation, |report| report.evaluation),
        checkpoints: match phase {
            Phase::Succeeded { .. } => Vec::new(),
            _ => checkpoint(seen, observed).map_or(kept.checkpoints, |newest| vec![newest]),
        },
        adapter: match phase {
            Phase::Succeeded { adapter, .. } => Some(adapter.clone()),
            _ => None,
        },
        gate: gate_of(phase).cloned(),
        published: published(old.published, &run.revision, phase),
        capacity,
        attempts: attempts(kept.attempts, phase, seen, observed),
    }
}

/// The newest checkpoint that the last pod of the training tells of.
fn checkpoint(seen: &Seen<'_>, observed: &Observed) -> Option<CheckpointStatus> {
    let told = observed.trainer.as_ref().and_then(|trainer| trainer.checkpoint.clone());
    told.or_else(|| {
        let pod = seen.trainings.last().and_then(|job| seen.pods(job).pop())?;
        let last_word = seen::terminated(pod)?.message.as_deref()?;
        Termination::from_message(last_word)?.checkpoint
    })
}

/// What the gate says, where there is one and something was published.
fn gate_of(phase: &Phase) -> Option<&GateStatus> {
    match phase {
        Phase::Succeeded { gate, .. } => gate.as_ref(),
        _ => None,
    }
}

/// The status of a revision that has succeeded, held against the gate as it is now; the phase, where it is
/// judged otherwise than before.
pub(crate) fn judged(
    status: &mut FineTuneWorkspaceStatus,
    run: &Run<'_>,
    gate: Option<&GateSpec>,
    observed: &Observed,
) -> Option<Phase> {
    let adapter = status.adapter.clone().filter(|_| status.phase == Some(Word::Succeeded))?;
    let gate = gate.map(|gate| gate::judge(gate, &status.evaluation));
    if gate == status.gate {
        return None;
    }
    let phase = Phase::Succeeded { adapter, gate: gate.clone() };
    let generation = run.raw.metadata.generation;
    status.conditions = conditions(&phase, observed, &status.conditions, generation);
    status.published = published(std::mem::take(&mut status.published), &run.revision, &phase);
    status.gate = gate;
    Some(phase)
}

/// The phase's name.
fn word(phase: &Phase) -> Word {
    match phase {
        Phase::Rejected { .. } => Word::Rejected,
        Phase::Suspended => Word::Suspended,
        Phase::Preflight { .. } => Word::Preflight,
        Phase::Queued | Phase::NoNodes { .. } => Word::Queued,
        Phase::Provisioning { .. } | Phase::Retrying { .. } => Word::Provisioning,
        Phase::Training | Phase::Ending { .. } => Word::Training,
        Phase::Evaluating => Word::Evaluating,
        Phase::Publishing { .. } => Word::Publishing,
        Phase::Succeeded { .. } => Word::Succeeded,
        Phase::Failed { .. } => Word::Failed,
    }
}

/// Why a phase is what it is, and in a sentence.
pub(crate) fn reason(phase: &Phase, observed: &Observed) -> (Reason, String) {
    let has_ended =
        matches!(phase, Phase::Rejected { .. } | Phase::Succeeded { .. } | Phase::Failed { .. });
    match &observed.obstacle {
        Some(obstacle) if !has_ended => {
            let hint = match obstacle.reason {
                Reason::FieldConflict => {
                    "make it leave this object alone; until then the operator sets the field back only \
                     now and then"
                }
                _ => "change what is refused, or who refuses it; the operator tries again",
            };
            (obstacle.reason, hinted(&obstacle.what, Some(hint)))
        }
        _ => reason_of(phase),
    }
}

pub(crate) fn hinted(message: &str, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{message}; next: {hint}"),
        None => message.to_owned(),
    }
}

fn reason_of(phase: &Phase) -> (Reason, String) {
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
        | Phase::Publishing { trouble: Some(trouble) }
        | Phase::NoNodes { trouble } => {
            (trouble.reason, hinted(&trouble.message, Some(&trouble.hint)))
        }
        Phase::Retrying { after } => {
            (Reason::Retrying, format!("another attempt follows: {}", after.message))
        }
        Phase::Training => (Reason::Training, "the training runs".to_owned()),
        Phase::Ending { end } => {
            (end.reason, format!("{}; the attempt is being ended", end.message))
        }
        Phase::Evaluating => {
            (Reason::Evaluating, "scoring the test examples, base and tuned".to_owned())
        }
        Phase::Publishing { trouble: None } => {
            (Reason::Publishing, "the adapter is being published".to_owned())
        }
        Phase::Succeeded { adapter, gate } => {
            let published = format!("published {}@{}", adapter.image, adapter.digest);
            match gate {
                Some(gate) if gate.passed => (
                    Reason::Succeeded,
                    format!("{published}; it passed its gate: {}", gate.message),
                ),
                Some(gate) => {
                    let message = format!("{published}; it failed its gate: {}", gate.message);
                    let hint = "servers that follow the workspace keep the newest revision that passed; \
                                train another one, or change evaluation.gate";
                    (Reason::GateFailed, hinted(&message, Some(hint)))
                }
                None => (Reason::Succeeded, published),
            }
        }
        Phase::Failed { end } => (end.reason, hinted(&end.message, end.hint.as_deref())),
    }
}

/// Every fault on a line of its own, with its hint.
pub(crate) fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> =
        faults.iter().map(|fault| fault.to_string().replace("\n  hint: ", "; next: ")).collect();
    lines.join("\n")
}

fn conditions(
    phase: &Phase,
    observed: &Observed,
    old: &[Condition],
    generation: Option<i64>,
) -> Vec<Condition> {
    let is_ready = matches!(phase, Phase::Succeeded { .. });
    let has_failed = matches!(phase, Phase::Failed { .. });
    let is_stalled = has_failed || matches!(phase, Phase::Rejected { .. });
    let is_suspended = matches!(phase, Phase::Suspended);
    let is_at_work = !(is_ready || is_stalled || is_suspended);
    let holds = [
        (READY, is_ready),
        (RECONCILING, is_at_work),
        (STALLED, is_stalled),
        (COMPLETE, is_ready),
        (FAILED, has_failed),
        (SUSPENDED, is_suspended),
    ];
    let passed = gate_of(phase).map(|gate| (GATE_PASSED, gate.passed));
    let holds: Vec<(&str, bool)> = holds.into_iter().chain(passed).collect();
    let (reason, message) = reason(phase, observed);
    said(&holds, (reason.as_str(), message), old, generation, &observed.now)
}

/// All conditions. One whose truth has not changed keeps its time.
pub(crate) fn said(
    holds: &[(&str, bool)],
    (reason, message): (&str, String),
    old: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let message = truncated(&message);
    let condition = |&(type_, holds): &(&str, bool)| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == type_);
        let since = before.filter(|condition| condition.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: generation,
            reason: reason.to_owned(),
            // What does not hold has the reason of what does; one message is enough.
            message: if holds || type_ == READY { message.clone() } else { String::new() },
            last_transition_time: since
                .map_or(now, |condition| &condition.last_transition_time)
                .clone(),
        }
    };
    holds.iter().map(condition).collect()
}

/// As much of a text as a condition takes.
pub(crate) fn truncated(text: &str) -> String {
    text.chars().take(MOST).collect()
}

/// The status of a workspace that this version cannot read: a later version's, perhaps. What it says of
/// earlier runs stays.
pub fn unreadable(
    old: Option<&FineTuneWorkspaceStatus>,
    generation: Option<i64>,
    error: &str,
    now: &Time,
) -> FineTuneWorkspaceStatus {
    let old = old.cloned().unwrap_or_default();
    let message = format!("this version of the operator cannot read it: {error}");
    let holds = [
        (READY, false),
        (RECONCILING, false),
        (STALLED, true),
        (COMPLETE, false),
        (FAILED, false),
        (SUSPENDED, false),
    ];
    let why = (Reason::InvalidSpec.as_str(), message);
    FineTuneWorkspaceStatus {
        observed_generation: generation,
        phase: Some(Word::Rejected),
        conditions: said(&holds, why, &old.conditions, generation, now),
        ..old
    }
}

/// Progress with the digits that a person reads, so that a status of the same meaning is the same; with the
/// time that is left, while it runs.
fn shown(mut progress: Progress, phase: &Phase) -> Progress {
    let round = |value: f64, factor: f64| (value * factor).round() / factor;
    let Progress { step, total_steps, .. } = progress;
    let left = progress.eta_seconds.filter(|_| matches!(phase, Phase::Training));
    let left = left.filter(|_| step < total_steps);
    let left = left.map(|seconds| format!(", {} left", about(seconds))).unwrap_or_default();
    progress.summary = format!("{step}/{total_steps}{left}");
    progress.train_loss = progress.train_loss.map(|loss| round(loss, 1e4));
    progress.valid_loss = progress.valid_loss.map(|loss| round(loss, 1e4));
    progress.tokens_per_second = progress.tokens_per_second.map(f64::round);
    progress
}

/// A length of time in one or two units.
fn about(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}
