//! `RunSpec`: the one file that tells the trainer what to do.
//!
//! It is written by `plan`, read by `train`, and holds no choice that is still open: every
//! hyperparameter is a number and every source is a path on this machine. What a workspace leaves
//! unset was chosen before this file was written. Enum values are spelt as in the workspace.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version that this build writes and reads.
pub const RUN_SPEC_VERSION: &str = "anneal.dev/run/v1alpha1";

/// Everything that a training run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunSpec {
    /// Always [`RUN_SPEC_VERSION`].
    pub version: String,
    /// The workspace's name.
    pub name: String,
    /// Hash over what training depends on: 12 lower-case hexadecimal digits.
    pub revision: String,
    pub base_model: BaseModel,
    pub data: Data,
    pub method: Method,
    pub adapter: Adapter,
    pub training: Training,
    pub evaluation: Evaluation,
    pub checkpoints: Checkpoints,
    pub compute: Compute,
    pub output: Output,
}

/// The frozen model that the run starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseModel {
    /// A Hugging Face folder or a GGUF file on this machine.
    pub path: PathBuf,
    /// What the user named: a path, an image reference or a repository with its revision.
    pub reference: String,
    /// Digest of the image, commit of the repository, or SHA-256 of the weights.
    pub digest: Option<String>,
}

/// Where the examples come from and how they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// Files or folders, in the order given.
    pub train: Vec<PathBuf>,
    pub validation: HeldOut,
    pub test: HeldOut,
    pub format: Format,
    /// Which column plays which role, where the names differ from the standard ones.
    #[serde(default)]
    pub columns: Columns,
    /// Builds prompt and completion from the columns of a record.
    #[serde(default)]
    pub template: Option<PromptTemplate>,
    /// Put before conversations that have no system message of their own.
    #[serde(default)]
    pub system: Option<String>,
    /// The closed set of completions of a labelling task; empty when answers are free text.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Longest example in tokens.
    pub max_sequence_length: usize,
    pub overlong: Overlong,
    /// Whether an exact copy of an earlier example is a fault or is dropped.
    pub duplicates: Duplicates,
}

/// Examples that are kept away from training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum HeldOut {
    /// Nothing is held out.
    None,
    /// This share of the training examples, chosen by a hash of each, so that an example keeps its
    /// place when others are added.
    Fraction(f64),
    /// Files of their own.
    Files(Vec<PathBuf>),
}

/// How a record is understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// From the first records.
    #[default]
    Auto,
    /// `messages: [{role, content}]`, or ShareGPT's `conversations: [{from, value}]`.
    Chat,
    /// `prompt` and `completion`, also Alpaca's `instruction`, `input`, `output`.
    Completion,
    /// `text`: every token is learned.
    Text,
}

/// Names of columns, where they differ from the standard ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Columns {
    pub messages: Option<String>,
    pub prompt: Option<String>,
    pub completion: Option<String>,
    pub text: Option<String>,
}

/// minijinja templates over the columns of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromptTemplate {
    pub prompt: String,
    pub completion: String,
}

/// What happens to an example that is longer than `max_sequence_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Overlong {
    /// The run is refused, naming the example.
    #[default]
    Fault,
    /// The end is cut off.
    Truncate,
    /// The example is left out and counted.
    Drop,
}

/// What happens to an exact copy of an earlier example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Duplicates {
    Fault,
    #[default]
    Drop,
    Keep,
}

/// How the model is taught. One variant is one file in `train/src/methods`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Method {
    /// Supervised fine-tuning: cross-entropy on assistant or completion tokens.
    Sft,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Adapter {
    /// Low-rank matrices beside the frozen ones (Hu et al. 2021), with PEFT's names and meaning.
    Lora(Lora),
    /// Every weight of the model.
    Full,
}

/// PEFT's `LoraConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lora {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    /// Names or patterns of linear layers; `all-linear` is every one but the head.
    pub target_modules: Vec<String>,
    pub exclude_modules: Vec<String>,
    /// Scale by `alpha / sqrt(rank)` (Kalajdzievski 2023) and not by `alpha / rank`.
    pub rslora: bool,
    pub bias: LoraBias,
    /// Modules trained in full and stored with the adapter, such as `embed_tokens` or `lm_head`.
    pub modules_to_save: Vec<String>,
}

/// Which bias vectors are trained beside the low-rank matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoraBias {
    #[default]
    None,
    All,
    LoraOnly,
}

/// Hyperparameters, with the names and the meaning of `transformers.TrainingArguments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Training {
    /// Optimizer steps in all.
    pub steps: u64,
    /// Passes over the training examples that `steps` amounts to.
    pub epochs: f64,
    /// Examples in one optimizer step. The loss of a step is the mean over all its label tokens, so
    /// how the step is cut into micro-batches changes memory and not the result.
    pub batch_size: usize,
    /// Tokens that go through the model at once: whole examples, without padding.
    pub micro_batch_tokens: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub warmup_steps: u64,
    pub weight_decay: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    /// Largest global gradient norm; 0 is no limit.
    pub max_grad_norm: f64,
    /// What the frozen weights and the activations are stored in. What is trained is fp32.
    pub precision: Precision,
    /// How the frozen matrices of linear layers are held in memory; arithmetic is in `precision`.
    #[serde(default, skip_serializing_if = "Quantization::is_none")]
    pub quantization: Quantization,
    /// Recompute activations in the backward pass.
    pub activation_checkpointing: bool,
    pub seed: u64,
}

/// How the learning rate moves after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Schedule {
    Constant,
    Linear,
    Cosine,
}

/// Number format of frozen weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Precision {
    Fp32,
    Bf16,
}

/// How the frozen matrices of linear layers are held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quantization {
    // Doc comments here would stand in place of the field's in `kubectl explain`.
    // As the checkpoint has them: in `precision`, unless it is quantized itself.
    #[default]
    None,
    // In 4 bits, with double quantization (`QLoRA`, Dettmers et al. 2023).
    #[serde(rename = "NF4")]
    Nf4,
    // In 8 bits, with a factor for each row.
    Int8,
}

impl Quantization {
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// As it is spelt in a workspace.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Nf4 => "NF4",
            Self::Int8 => "Int8",
        }
    }
}

/// When the held-out examples are scored, and with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evaluation {
    /// Steps between two evaluations of the validation split; 0 is at the end of each epoch.
    pub every_steps: u64,
    /// Scores of generated answers on the test split, for base and tuned.
    pub metrics: Vec<Metric>,
    /// Longest generated answer in tokens.
    pub max_new_tokens: usize,
    /// Test examples that are generated for; 0 is all.
    pub max_examples: usize,
    pub early_stopping: Option<EarlyStopping>,
}

/// A score of generated answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Metric {
    ExactMatch,
    Accuracy,
    MacroF1,
    RougeL,
    Bleu,
    JsonValidity,
}

impl Metric {
    /// The name that its score has in events and in the status.
    pub const fn score(self) -> &'static str {
        match self {
            Self::ExactMatch => "exactMatch",
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macroF1",
            Self::RougeL => "rougeL",
            Self::Bleu => "bleu",
            Self::JsonValidity => "jsonValidity",
        }
    }
}

/// Stop when the validation loss no longer falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EarlyStopping {
    /// Evaluations without improvement that end the run.
    pub patience: u64,
    /// The least fall in validation loss that counts.
    pub min_delta: f64,
}

/// When the state of the run is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoints {
    /// Steps between two checkpoints; 0 is not by steps.
    pub every_steps: u64,
    /// Seconds after which one is written in any case; 0 is not by time.
    #[serde(default)]
    pub every_seconds: u64,
    /// How many are kept, beside the best one.
    pub keep: usize,
}

/// The machine's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compute {
    pub device: Device,
    /// CPU threads; unset is what the cgroup allows.
    pub threads: Option<usize>,
}

/// Where the arithmetic runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Device {
    /// CUDA where the machine has it, else CPU.
    #[default]
    Auto,
    #[serde(rename = "CPU")]
    Cpu,
    #[serde(rename = "CUDA")]
    Cuda,
}

/// Where the run writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    /// The run's folder: `run.json`, `events.jsonl`, `checkpoints/`, `adapter/`, `report.html`.
    pub dir: PathBuf,
}
