//! A workspace that cannot be wrong: unions are enums, names are parsed, numbers are in range. Made by
//! [`crate::validate::validate`] only. What is `None` here is for `plan` to choose.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Toleration;

use crate::names::{HubRepository, ImageReference, WorkspaceName};
use crate::run_spec::{
    Columns, Device, Duplicates, EarlyStopping, Format, LoraBias, Method, Metric, Overlong,
    Precision, PromptTemplate, Quantization, Schedule,
};
use crate::workspace::{CapacityType, CheckpointPlace, GateSpec, NodeClassRef, Provisioner};

/// A validated `FineTuneWorkspace`.
#[derive(Clone, Debug, PartialEq)]
pub struct Workspace {
    pub name: WorkspaceName,
    pub namespace: Option<String>,
    pub base_model: ModelSource,
    pub data: Data,
    pub method: Method,
    pub adapter: Adapter,
    pub quantization: Quantization,
    pub hyperparameters: Hyperparameters,
    pub evaluation: Evaluation,
    /// `None` is off.
    pub early_stopping: Option<EarlyStopping>,
    pub checkpoints: Checkpoints,
    pub compute: Compute,
    pub output: Output,
    pub limits: Limits,
    pub secrets: Secrets,
    /// No pod may run.
    pub suspend: bool,
}

/// What bounds a run in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub deadline: Option<Duration>,
    pub retries: u32,
    /// Longest time without a sign of work.
    pub stall: Duration,
    pub ttl_after_finished: Option<Duration>,
}

/// Names of secrets in the workspace's namespace; a local run has no use for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    pub pull_model: Option<String>,
    pub pull_data: Option<String>,
    pub push: Option<String>,
    /// Its key `token` is sent to the Hugging Face hub.
    pub hub: Option<String>,
}

/// Where the base model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    Path(PathBuf),
    Image(ImageReference),
    HuggingFace(HubRepository),
}

/// Where examples come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// Files or folders in this order; never empty.
    Paths(Vec<PathBuf>),
    Image(ImageReference),
}

/// Where held-out examples come from.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOut {
    None,
    /// Above 0 and below 1.
    Fraction(f64),
    Source(DataSource),
}

/// The examples and how they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    pub train: DataSource,
    pub validation: HeldOut,
    pub test: HeldOut,
    pub format: Format,
    pub columns: Columns,
    pub template: Option<PromptTemplate>,
    pub system: Option<String>,
    pub labels: Vec<String>,
    pub overlong: Overlong,
    pub duplicates: Duplicates,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapter {
    Lora(Lora),
    Full,
}

/// A low-rank adapter; what is `None` is still to be chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lora {
    pub rank: Option<u32>,
    pub alpha: Option<f64>,
    pub dropout: Option<f64>,
    /// `None` is `all-linear`.
    pub target_modules: Option<Vec<String>>,
    pub exclude_modules: Vec<String>,
    pub rslora: bool,
    pub bias: LoraBias,
    pub modules_to_save: Vec<String>,
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    Epochs(f64),
    Steps(u64),
}

/// How fast to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LearningRate {
    Exactly(f64),
    /// Times what would be chosen; 1 when nothing was said.
    Times(f64),
}

/// How long the learning rate rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    Steps(u64),
    /// Share of all steps.
    Ratio(f64),
}

/// Numbers of the training; what is `None` is still to be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    pub length: Option<Length>,
    pub batch_size: Option<u32>,
    pub micro_batch_tokens: Option<u32>,
    pub learning_rate: LearningRate,
    pub schedule: Option<Schedule>,
    pub warmup: Option<Warmup>,
    pub weight_decay: Option<f64>,
    pub adam_beta1: Option<f64>,
    pub adam_beta2: Option<f64>,
    pub adam_epsilon: Option<f64>,
    pub max_grad_norm: Option<f64>,
    pub max_sequence_length: Option<u32>,
    pub precision: Option<Precision>,
    pub activation_checkpointing: Option<bool>,
    pub seed: Option<u64>,
}

/// When held-out examples are scored, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub every_steps: Option<u64>,
    pub metrics: Option<Vec<Metric>>,
    pub max_new_tokens: Option<u32>,
    pub max_examples: Option<u32>,
    pub gate: Option<GateSpec>,
}

/// When the state of the run is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    pub every_steps: Option<u64>,
    pub every: Option<Duration>,
    pub keep: Option<u32>,
    pub to: CheckpointPlace,
}

/// The machine that the run may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Compute {
    pub device: Device,
    pub threads: Option<u32>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Those that the training pod asks for, in a cluster.
    pub gpus: u32,
    /// `None` leaves it to the cluster.
    pub nodes: Option<Nodes>,
    pub queue_name: Option<String>,
    pub priority_class_name: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
}

/// The GPU nodes that a run gets in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// `None` is to be found out.
    pub provisioner: Option<Provisioner>,
    pub node_class: Option<NodeClassRef>,
    pub capacity_type: CapacityType,
    pub max_interruptions: u32,
    /// Empty is all.
    pub products: Vec<String>,
    /// Bytes.
    pub gpu_memory: Option<u64>,
    /// Empty is all.
    pub zones: Vec<String>,
    pub ttl_after_idle: Duration,
    pub labels: BTreeMap<String, String>,
}

/// Where the result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Without a tag, the tag is the revision. Never with a digest.
    pub image: Option<ImageReference>,
    pub dir: Option<PathBuf>,
}
