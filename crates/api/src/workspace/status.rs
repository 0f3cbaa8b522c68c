//! What the operator reports of a workspace. A local run shows the same on the terminal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::GateStatus;
use super::nodes::CapacityStatus;

/// What was observed of the workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FineTuneWorkspaceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Hash over what training depends on; another one is another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,

    /// Where the run is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// `Ready`, `Reconciling`, `Stalled`; `Complete`, `Failed`, `Suspended`; with `spec.evaluation.gate`,
    /// `GatePassed`, once the adapter is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// How far the training is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// What preflight found out: the size of the data, and what the run will take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,

    /// Scores of generated answers on the test examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<Score>,

    /// What the run would go on from: the newest checkpoint in the registry, until the adapter is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<CheckpointStatus>,

    /// The published adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterStatus>,

    /// Whether the published adapter is what `spec.evaluation.gate` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStatus>,

    /// Adapters that were published, of this revision and of earlier ones, the newest at the end; at most ten.
    /// A `ModelServer` may name one by its revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,

    /// The GPU nodes of a run that asks for some with `compute.nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacityStatus>,

    /// Every start of this revision's training, the last one at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    Rejected,
    Preflight,
    Queued,
    Provisioning,
    Training,
    Publishing,
    Evaluating,
    Succeeded,
    Failed,
    Suspended,
}

/// How far the training is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Steps done of all, and the time left while it trains, such as `120/400, 25m left`.
    pub summary: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps in all.
    pub total_steps: u64,
    /// Loss of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_loss: Option<f64>,
    /// Loss of the last scoring of the validation examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// Tokens that carry meaning (no padding) per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Seconds that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

/// The published adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdapterStatus {
    /// Repository and tag.
    pub image: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of all layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// An adapter that was published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The revision that was trained.
    pub revision: String,
    /// Repository and tag.
    pub image: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Why it failed its gate; unset of one that passed, or had none. Servers that follow the workspace take
    /// up none that failed, those that name its revision do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_failed: Option<String>,
}

/// A checkpoint in the registry, from which a run goes on that has lost its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// Repository and tag.
    pub image: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Optimizer steps that were taken.
    pub step: u64,
}

/// What preflight found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// Training examples.
    pub examples: u64,
    /// Tokens of all training steps.
    pub training_tokens: u64,
    /// Bytes of memory at the peak.
    pub memory: u64,
    /// Bytes of the smallest GPU that holds the run, by the estimate; none where no GPU does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<u64>,
    /// Changes with which the run would take a smaller GPU, the cheapest first; where it asks for nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smaller: Vec<Smaller>,
    /// Seconds of training, scoring and generation on the machine that preflight ran on.
    pub seconds: u64,
    /// The base model, pinned: the commit that a branch stood for is the one that is trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

/// A change of the spec, and what the run would then take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Smaller {
    /// What to change, such as ``set `quantization: NF4` (QLoRA)``.
    pub change: String,
    /// Bytes of the smallest GPU that then holds the run, by the estimate.
    pub gpu_memory: u64,
}

/// One score of generated answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// The metric's name, such as `MacroF1`.
    pub metric: String,
    /// Score of the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<f64>,
    /// Score of the tuned model.
    pub tuned: f64,
}

/// One start of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The pod that ran it.
    pub pod: String,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// The step of the checkpoint that it went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    /// `Running`, `Succeeded`, or why it ended, such as `OutOfMemory`.
    pub outcome: String,
    /// Why it ended, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
