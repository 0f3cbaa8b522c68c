//! What a run says while it works: one event per line of `events.jsonl`, and the same to the
//! caller. The report, the progress bar and `/status` are all made from these and nothing else.

mod log;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ExitClass;

pub use log::{EventLog, Record, read};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The data and the model are ready; training begins.
    Started(Box<Started>),
    /// An earlier process wrote a checkpoint after `step` steps; training goes on from there.
    Resumed { step: u64, steps: u64, checkpoint: PathBuf },
    /// Something that the user should know and that does not end the run.
    Warning { message: String, hint: Option<String> },
    /// How far a longer task is. Not written to the file.
    Progress { what: Activity, done: u64, total: u64 },
    /// One optimizer step was taken.
    Step(Step),
    /// The validation split was scored.
    Validated {
        step: u64,
        epoch: f64,
        loss: f64,
        token_accuracy: f64,
        /// Whether this is the lowest loss so far.
        best: bool,
        seconds: f64,
    },
    /// A checkpoint is on the disk.
    Saved { step: u64, path: PathBuf },
    /// The validation loss no longer fell, so that training ended before its last step.
    StoppedEarly { step: u64, best_step: u64, evaluations: u64 },
    /// Base and tuned model were scored on the same examples.
    Compared(Compared),
    /// Prompts answered by base and tuned model.
    Samples { samples: Vec<Sample> },
    /// The caller stopped the run; the same command goes on from here.
    Stopped { step: u64, steps: u64 },
    /// The run ended without an adapter.
    Failed { class: ExitClass, message: String, hint: Option<String> },
    /// The adapter is written.
    Finished(Box<Finished>),
}

/// What is about to be trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    pub name: String,
    pub revision: String,
    /// The run's folder.
    pub dir: PathBuf,
    /// What the user named as base model.
    pub base_model: String,
    pub base_model_digest: Option<String>,
    /// Optimizer steps in all.
    pub steps: u64,
    pub epochs: f64,
    pub train_examples: u64,
    pub validation_examples: u64,
    pub test_examples: u64,
    pub parameters: u64,
    pub trainable_parameters: u64,
    pub threads: u64,
    /// `cpu` or `cuda:0`.
    pub device: String,
}

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Counts from 1.
    pub step: u64,
    pub steps: u64,
    /// Passes over the training examples after this step.
    pub epoch: f64,
    /// Mean over the step's label tokens, before the step.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Share of the label tokens that the model ranked first.
    pub token_accuracy: f64,
    /// Tokens of this step; there is no padding.
    pub tokens: u64,
    /// Of this step alone, without evaluation and checkpoints.
    pub tokens_per_second: f64,
    /// Seconds that the rest of the training will take; unknown at first.
    pub eta_seconds: Option<f64>,
}

/// A task whose progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Activity {
    /// Reading examples; counted in bytes of their files.
    ReadingData,
    /// Loading weights; counted in layers or bytes.
    LoadingModel,
    /// Scoring the validation split; counted in examples.
    Validating,
    /// Answering test prompts with the base model; counted in prompts.
    AnsweringBase,
    /// Answering test prompts with the tuned model; counted in prompts.
    AnsweringTuned,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Split {
    Train,
    Validation,
    Test,
}

/// The table of base against tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    pub split: Split,
    /// Examples that loss and token accuracy were taken over.
    pub examples: u64,
    /// Examples that answers were generated for.
    pub answered: u64,
    pub rows: Vec<Comparison>,
}

/// One row of the table of base against tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// `loss`, `tokenAccuracy`, or the name of a metric of the run specification.
    pub metric: String,
    pub base: f64,
    pub tuned: f64,
    pub higher_is_better: bool,
}

impl Comparison {
    /// The score's name as it is printed.
    pub fn title(&self) -> &str {
        match self.metric.as_str() {
            "loss" => "Loss",
            "tokenAccuracy" => "Token accuracy",
            "exactMatch" => "Exact match",
            "accuracy" => "Accuracy",
            "macroF1" => "Macro-F1",
            "rougeL" => "ROUGE-L",
            "bleu" => "BLEU",
            "jsonValidity" => "Valid JSON",
            other => other,
        }
    }

    /// Whether the score is a share of 1, to be shown in per cent.
    pub fn is_share(&self) -> bool {
        !matches!(self.metric.as_str(), "loss" | "bleu")
    }
}

/// A prompt, what was expected, and what both models said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub prompt: String,
    pub reference: String,
    pub base: String,
    pub tuned: String,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// Folder of the adapter, or of the whole model after full fine-tuning.
    pub adapter: PathBuf,
    /// SHA-256 over the adapter's files: names and contents.
    pub adapter_digest: String,
    /// Steps that were taken.
    pub steps: u64,
    /// The step whose weights the adapter holds.
    pub best_step: u64,
    pub validation_loss: Option<f64>,
    /// Seconds of training, over all processes of this run.
    pub training_seconds: f64,
    /// Tokens trained on.
    pub tokens: u64,
    pub tokens_per_second: f64,
    /// Largest resident set of this process in bytes.
    pub peak_memory: u64,
}
