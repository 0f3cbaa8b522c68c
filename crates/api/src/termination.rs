//! What a trainer or preflight pod says to the operator: its progress while it runs (`GET /status`), and
//! at its end the termination message beside the exit code.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::workspace::{AdapterStatus, CheckpointStatus, Progress, Resolved, Score};

/// Most bytes that the kubelet keeps of a termination message.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Exit codes of the trainer and of `anneal run`: classes, by which a Job's `podFailurePolicy` decides.
pub mod exit_code {
    /// Done.
    pub const DONE: i32 = 0;
    /// A mistake in Anneal.
    pub const INTERNAL: i32 = 1;
    /// The user's data or configuration. Never tried again.
    pub const CONFIGURATION: i32 = 10;
    /// A registry or a hub refused the credential. Never tried again.
    pub const CREDENTIAL: i32 = 11;
    /// Out of memory. Tried again with half the micro-batch.
    pub const OUT_OF_MEMORY: i32 = 12;
    /// Input or output that may work later.
    pub const IO: i32 = 13;
    /// Stopped by a signal, after a checkpoint.
    pub const STOPPED: i32 = 14;
    /// SIGKILL, as a shell counts it: the kernel's out-of-memory killer, or the kubelet.
    pub const KILLED: i32 = 137;
}

/// What the trainer does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading model and data.
    #[default]
    Loading,
    Training,
    Evaluating,
    Publishing,
}

/// The answer to `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainerStatus {
    pub stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The step that an earlier attempt's checkpoint let this one begin after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    /// The newest checkpoint in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    /// The last thing that a user should know and that does not end the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Seconds since the last sign of work: a step, a batch of answers, a part of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
}

/// The termination message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Termination {
    /// What went wrong: what was being done, to what, and why. Empty after success.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The first faults of data or configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What preflight found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// The last progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The step that an earlier attempt's checkpoint let this one begin after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    /// Scores on the test examples.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<Score>,
    /// The newest checkpoint in the registry, where the run is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    /// What was pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterStatus>,
    /// How long the push took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_seconds: Option<f64>,
}

impl Termination {
    /// JSON that fits; the last faults are left out where they do not.
    pub fn to_message(&self) -> String {
        let mut short = self.clone();
        loop {
            let text = serde_json::to_string(&short).unwrap_or_default();
            if text.len() <= MAX_TERMINATION_MESSAGE {
                return text;
            }
            if short.faults.pop().is_none() {
                // Only a message of kilobytes is left: its beginning tells the most.
                let keep = short.message.len() / 2;
                short.message.truncate(short.message.floor_char_boundary(keep));
            }
        }
    }

    /// Reads a termination message; `None` where something else than the trainer wrote it.
    pub fn from_message(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
