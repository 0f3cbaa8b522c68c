//! `FineTuneWorkspace`: what a user writes. One base model, data to teach it with, and where the
//! result goes; everything else has a default or is chosen from the size of model and data.
//!
//! The doc comments here are the text of `kubectl explain` and of the CRD. Ranges are in the schema,
//! so that the API server and `anneal validate` refuse the same values; rules over several fields are
//! CEL here and code in [`crate::validate`]. Fields that are not here yet are named in
//! [`crate::later`], so that using one is told and not ignored.

#![expect(unreachable_pub, reason = "KubeSchema derives a copy of each struct that nobody sees")]

mod data;
mod gate;
mod limits;
mod nodes;
mod run;
mod source;
mod status;
mod training;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use crate::run_spec::{
    Device, Duplicates, Format, LoraBias, Metric, Overlong, Precision, Quantization, Schedule,
};
pub use data::{ColumnsSpec, DataSpec, TemplateSpec};
pub use gate::{GateMetric, GateSpec, GateStatus};
pub use limits::LimitsSpec;
pub use nodes::{
    CapacityStatus, CapacityType, GpuSeconds, NodeClassRef, NodeUse, NodesSpec, PhaseSeconds,
    Provisioner,
};
pub use run::{
    CheckpointPlace, CheckpointsSpec, ComputeSpec, EarlyStoppingSpec, EvaluationSpec, OutputSpec,
};
pub use source::{DataSource, HeldOutSource, HuggingFaceRepository, ModelSource};
pub use status::{
    AdapterStatus, Attempt, CheckpointStatus, FineTuneWorkspaceStatus, Phase, Progress, Published,
    Resolved, Score, Smaller,
};
pub use training::{AdapterSpec, FullSpec, HyperparametersSpec, LoraSpec, MethodSpec, SftSpec};

/// Group and version of everything that Anneal defines.
pub const API_VERSION: &str = "anneal.dev/v1alpha1";

/// The kind's name.
pub const KIND: &str = "FineTuneWorkspace";

/// What is to be trained, on what, and where the result goes.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "anneal.dev",
    version = "v1alpha1",
    kind = "FineTuneWorkspace",
    plural = "finetuneworkspaces",
    shortname = "ftw",
    category = "anneal",
    namespaced,
    status = "FineTuneWorkspaceStatus",
    derive = "PartialEq",
    doc = "Fine-tunes a base model on data and publishes the adapter as an OCI image.",
    validation = Rule::new("oldSelf.hasValue() || self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").optional_old_self(true).message("metadata.name must be a DNS label of at most 50 characters: the revision is appended to it to name the run"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the run is in its life"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.summary", description = "Steps done, of all, and the time left while it trains"),
    printcolumn(name = "Loss", type_ = "number", json_path = ".status.progress.trainLoss", description = "Training loss of the last step"),
    printcolumn(name = "GPU", type_ = "integer", json_path = ".spec.compute.gpus", description = "GPUs asked for"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = "1"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision", priority = "1"),
    printcolumn(name = "Adapter", type_ = "string", json_path = ".status.adapter.digest", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct FineTuneWorkspaceSpec {
    /// The model that the run starts from: a folder or file, an OCI image, or a Hugging Face repository.
    pub base_model: ModelSource,

    /// The examples to learn from, and those that are kept away to measure what was learned.
    pub data: DataSpec,

    /// How the model is taught. Supervised fine-tuning (`sft: {}`) when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodSpec>,

    /// What is trained: a LoRA adapter (`lora: {…}`, when unset) or every weight (`full: {}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSpec>,

    /// How the frozen matrices of linear layers are held in memory: `NF4` (`QLoRA`: a quarter of bf16), `Int8`
    /// (half of bf16), or `None`, which is `hyperparameters.precision` and the default. Arithmetic is in
    /// `hyperparameters.precision` in any case. A base model that bitsandbytes has quantized stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,

    /// Numbers of the training, with the names and the meaning they have in transformers. Each that is
    /// unset is chosen from the size of model and data; `anneal plan` shows the choice and its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperparameters: Option<HyperparametersSpec>,

    /// When held-out examples are scored, and by what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationSpec>,

    /// Stops the run when the validation loss no longer falls. Needs `data.validation`. Off when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStoppingSpec>,

    /// When the state of the run is written down, so that it can go on after an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointsSpec>,

    /// The machine that the run may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<ComputeSpec>,

    /// Where the adapter goes. When unset, into the run's folder as an OCI layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,

    /// How long the run may take, how often it is tried again, and when its pods are cleared away. In a
    /// cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,

    /// Holds the run: no pod runs while this is true, and the run goes on when it is false again. In a
    /// cluster only.
    #[serde(default)]
    pub suspend: bool,
}
