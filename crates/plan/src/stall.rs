//! A trainer that shows no sign of work: when that is so, and how its Job is ended.
//!
//! The Job is not deleted, so that it goes on counting against `limits.retries`: its deadline is made one
//! that has passed, and an annotation says why. The Job controller then ends pod and Job.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Workspace;
use api::condition::Reason;
use api::termination::Stage;
use k8s_openapi::api::batch::v1::Job;

use crate::end::{Again, End};
use crate::names::STALLED;
use crate::observed::Observed;

/// Whether the trainer itself says that it has done nothing for too long. One that does not answer is
/// the kubelet's to judge: a network policy may be in the way.
pub(crate) fn stalls(workspace: &Workspace, observed: &Observed) -> bool {
    observed.trainer.as_ref().is_some_and(|trainer| {
        // A push waits for the registry, and has limits of its own.
        trainer.stage != Stage::Publishing
            && trainer.idle_seconds.is_some_and(|idle| idle > workspace.limits.stall.as_secs())
    })
}

/// Whether the Job is being ended, or has been, for showing no sign of work.
pub(crate) fn is_marked(job: &Job) -> bool {
    word(job).is_some()
}

/// What is told of an attempt of a Job that was marked. Its pod may be gone before the Job has failed.
pub(crate) fn word(job: &Job) -> Option<String> {
    job.metadata.annotations.as_ref()?.get(STALLED).map(|limit| message(limit))
}

/// Ends the Job, and notes the limit that it did not keep.
pub(crate) fn mark(job: &mut Job, limit: Duration) {
    let annotations = job.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(STALLED.to_owned(), text(limit));
    if let Some(spec) = &mut job.spec {
        spec.active_deadline_seconds = Some(1);
    }
}

/// How an attempt ended that was ended for this.
pub(crate) fn end(limit: Duration) -> End {
    End {
        reason: Reason::TrainerStalled,
        message: message(&text(limit)),
        hint: Some(
            "see the pod's log; raise limits.stall if one step takes longer, then edit the workspace"
                .to_owned(),
        ),
        again: Again::Unchanged,
    }
}

/// How an attempt ended that the kubelet killed, since the trainer did not even answer.
pub(crate) fn silent() -> End {
    End {
        reason: Reason::TrainerStalled,
        message: "the trainer did not answer any more, and the kubelet killed it".to_owned(),
        hint: Some("see the pod's log and the node's; then edit the workspace".to_owned()),
        again: Again::Unchanged,
    }
}

fn message(limit: &str) -> String {
    format!("the trainer showed no sign of work for {limit}")
}

/// A length of time as the spec has it.
pub(crate) fn text(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds % 3600, seconds % 60) {
        (0, _) => format!("{}h", seconds / 3600),
        (_, 0) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
