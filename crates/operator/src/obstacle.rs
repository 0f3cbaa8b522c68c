//! Why objects cannot be applied, for as long as it is not tried again.
//!
//! A field of ours that somebody else has set is put back at once, so that a slip of the hand does no harm;
//! one that is set again soon is left for a while and told, so that two programs that disagree do not write
//! in turns. What the API server refuses is told, and tried again after a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use api::condition::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use plan::Obstacle;

/// Least time between two times that fields of one workspace's objects are put back, or that an object is
/// applied which was refused.
const REST: SignedDuration = SignedDuration::from_secs(30);

/// What was met lately, by workspace.
#[derive(Debug, Default)]
pub(crate) struct Obstacles(Mutex<HashMap<String, Met>>);

#[derive(Debug)]
struct Met {
    at: Timestamp,
    /// Nothing, where fields were put back and nobody has set them again since.
    obstacle: Option<(Reason, String)>,
}

impl Obstacles {
    /// Whether fields may be put back now. Where not, it is remembered who sets them.
    pub(crate) fn may_put_back(&self, workspace: &str, what: &str) -> bool {
        let now = Timestamp::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, met| now.duration_since(met.at) < REST);
        if let Some(met) = all.get_mut(workspace) {
            met.obstacle = Some((Reason::FieldConflict, what.to_owned()));
            return false;
        }
        all.insert(workspace.to_owned(), Met { at: now, obstacle: None });
        true
    }

    /// Remembers that an object is refused.
    pub(crate) fn refused(&self, workspace: &str, what: String) {
        let met = Met { at: Timestamp::now(), obstacle: Some((Reason::ObjectRefused, what)) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace.to_owned(), met);
    }

    /// What is in the way now.
    pub(crate) fn of(&self, workspace: &str) -> Option<Obstacle> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let met = all.get(workspace)?;
        let until = met.at + REST;
        let (reason, what) = met.obstacle.clone().filter(|_| until > Timestamp::now())?;
        Some(Obstacle { reason, what, until: Time(until) })
    }
}

/// Why an object is refused for good: as it is, it will not be taken.
pub(crate) fn refusal(kind: &str, name: &str, answer: Option<&kube::Error>) -> Option<String> {
    let Some(kube::Error::Api(status)) = answer else { return None };
    matches!(status.code, 400 | 403 | 422)
        .then(|| format!("the API server refuses {kind} `{name}`: {}", status.message))
}

/// Who sets which fields of an object, from the API server's refusal of an apply; `None` where it was
/// refused for another reason.
pub(crate) fn conflict(kind: &str, name: &str, refusal: Option<&kube::Error>) -> Option<String> {
    const SHOWN: usize = 3;
    let Some(kube::Error::Api(refusal)) = refusal else { return None };
    let causes = refusal.details.as_ref().map(|details| details.causes.as_slice())?;
    let conflicts = causes.iter().filter(|cause| cause.reason == "FieldManagerConflict");
    let told: Vec<String> = conflicts
        .take(SHOWN)
        .map(|cause| {
            let manager = cause.message.split('"').nth(1).unwrap_or("somebody");
            format!("`{manager}` sets {}", cause.field)
        })
        .collect();
    (!told.is_empty()).then(|| format!("{} of {kind} `{name}`", told.join(", ")))
}
