//! How a run fails: the class that decides the exit code, the cause, and what to do next.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::DataError;
use crate::files::FileError;

/// What kind of failure it was, which decides whether a retry can help. The exit codes are a
/// contract with whatever starts the trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExitClass {
    /// A mistake of ours.
    Internal,
    /// The user's data or configuration: never retried.
    Configuration,
    /// A registry or a credential was refused: never retried.
    Refused,
    /// Out of memory: retried with smaller micro-batches, which leave the losses as they are.
    OutOfMemory,
    /// Input or output that may work the next time.
    Io,
    /// Stopped by a signal, with a checkpoint written.
    Stopped,
}

impl ExitClass {
    /// The process's exit code.
    pub fn code(self) -> i32 {
        match self {
            Self::Internal => 1,
            Self::Configuration => 10,
            Self::Refused => 11,
            Self::OutOfMemory => 12,
            Self::Io => 13,
            Self::Stopped => 14,
        }
    }
}

/// Why a run ended without an adapter.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data or the configuration cannot be trained on.
    #[error("{message}")]
    Configuration { message: String, hint: String },
    /// The data has faults, each with its place and hint.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A loss or gradient was not a number; the optimizer step was not taken.
    #[error("{what} is not a finite number at step {step}: training was stopped before the step")]
    NotFinite { what: &'static str, step: u64 },
    /// Memory ran out.
    #[error("out of memory while {doing}: {message}")]
    OutOfMemory { doing: &'static str, message: String },
    /// A file of the run could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process works in the same folder.
    #[error("`{}` is in use by another run", .0.display())]
    Busy(PathBuf),
    /// The caller asked to stop, and the state at `step` was saved.
    #[error("stopped at step {step} of {steps}; the checkpoint is written")]
    Stopped { step: u64, steps: u64 },
    /// A mistake of ours.
    #[error("internal error while {doing}: {message}")]
    Internal { doing: &'static str, message: String },
}

impl RunError {
    /// Decides the exit code, and whether another try can help.
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Configuration { .. } | Self::Data(_) | Self::NotFinite { .. } => {
                ExitClass::Configuration
            }
            Self::OutOfMemory { .. } => ExitClass::OutOfMemory,
            Self::File(_) | Self::Busy(_) => ExitClass::Io,
            Self::Stopped { .. } => ExitClass::Stopped,
            Self::Internal { .. } => ExitClass::Internal,
        }
    }

    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Configuration { hint, .. } => hint.as_str(),
            Self::Data(_) => "",
            Self::NotFinite { .. } => {
                "lower the learning rate or lengthen the warm-up, use fp32, and look at the data \
                 for extreme examples; the last good checkpoint was kept"
            }
            Self::OutOfMemory { .. } => {
                "lower microBatchTokens (the losses stay the same), switch on activation \
                 checkpointing, or shorten maxSequenceLength"
            }
            Self::File(error) => error.hint(),
            Self::Busy(_) => "wait until the other run ends, or stop it",
            Self::Stopped { .. } => "run the same command again to go on",
            Self::Internal { .. } => "please report this with the file events.jsonl",
        };
        (!hint.is_empty()).then(|| hint.to_owned())
    }

    /// A mistake of the user's, and what to do about it.
    pub fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Configuration { message: message.into(), hint: hint.into() }
    }

    /// Reads the cause out of a panic of LibTorch's: tch turns every C++ exception into one.
    pub fn from_panic(payload: &(dyn std::any::Any + Send), doing: &'static str) -> Self {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let first_line = first_sentence(message);
        if is_out_of_memory(message) {
            return Self::OutOfMemory { doing, message: first_line };
        }
        Self::Internal { doing, message: first_line }
    }
}

/// An error's text with those of its sources, none of which repeats the next.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The texts with which LibTorch's CPU and CUDA allocators give up.
fn is_out_of_memory(message: &str) -> bool {
    let lower = message.to_lowercase();
    ["out of memory", "not enough memory", "can't allocate memory", "bad_alloc"]
        .iter()
        .any(|text| lower.contains(text))
}

/// The part of a C++ message that a user can read: its first line, without the stack trace.
fn first_sentence(message: &str) -> String {
    // tch wraps the C++ text as `called `Result::unwrap()` on an `Err` value: Torch("…")`.
    let inner = message.split_once("Torch(\"").map_or(message, |(_, rest)| rest);
    let line = inner.split("\\n").next().unwrap_or(inner);
    let line = line.lines().next().unwrap_or(line);
    line.trim_end_matches("\")").to_owned()
}
