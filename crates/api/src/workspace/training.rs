//! How the model is taught, and what of it is trained.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{LoraBias, Precision, Schedule};

/// How the model is taught. Exactly one field is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.sft)").message("set sft: {}"))]
#[serde(rename_all = "camelCase")]
pub struct MethodSpec {
    /// Supervised fine-tuning: cross-entropy on the tokens that the model is to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftSpec>,
}

/// Supervised fine-tuning has no settings of its own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SftSpec {}

/// What is trained. Exactly one of `lora` and `full`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.lora) != has(self.full)").message("set exactly one of lora, full"))]
#[serde(rename_all = "camelCase")]
pub struct AdapterSpec {
    /// Low-rank matrices beside the frozen ones; the result is an adapter of a few megabytes in PEFT's
    /// format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSpec>,

    /// Every weight of the model; the result is a model of the same size as the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullSpec>,
}

/// Full fine-tuning has no settings of its own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullSpec {}

/// LoRA, with the names and the meaning of PEFT's `LoraConfig`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoraSpec {
    /// Inner dimension of the low-rank matrices (PEFT's `r`). 16 when unset, more for large data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub rank: Option<u32>,

    /// What is added is scaled by `alpha / rank` (PEFT's `lora_alpha`). 32 when unset, which keeps the
    /// best learning rate nearly free of the rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub alpha: Option<f64>,

    /// Share of the adapter's inputs set to zero in training, from 0 to below 1. 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub dropout: Option<f64>,

    /// Linear layers that get an adapter: names (`q_proj`, or a full one), regular expressions that match
    /// a full name (`.*\.layers\.[0-3]\..*`), or `all-linear`, which is all but the output head and is
    /// the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub target_modules: Option<Vec<String>>,

    /// Linear layers that get none, though `targetModules` names them: names or regular expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_modules: Vec<String>,

    /// Scale by `alpha / sqrt(rank)`, which is steadier for large ranks (Kalajdzievski 2023). `alpha` is
    /// then 8 when unset.
    #[serde(default)]
    pub rslora: bool,

    /// Bias vectors that are trained too: `None`, `All`, or `LoraOnly` for those of the target layers.
    #[serde(default)]
    pub bias: LoraBias,

    /// Modules that are trained in full and stored with the adapter, such as `embed_tokens` or `lm_head`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
}

/// Numbers of the training. Each that is unset is chosen from the size of model and data.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.epochs) && has(self.maxSteps))").message("epochs and maxSteps both say how long to train: set one"))]
#[x_kube(validation = Rule::new("!(has(self.learningRate) && has(self.learningRateMultiplier))").message("learningRate and learningRateMultiplier both say how fast to learn: set one"))]
#[x_kube(validation = Rule::new("!(has(self.warmupSteps) && has(self.warmupRatio))").message("warmupSteps and warmupRatio both say how long to warm up: set one"))]
#[serde(rename_all = "camelCase")]
pub struct HyperparametersSpec {
    /// Passes over the training examples; may be a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub epochs: Option<f64>,

    /// Optimizer steps, in place of `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,

    /// Examples in one optimizer step. How they are cut into micro-batches to fit into memory does not
    /// change the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: Option<u32>,

    /// Tokens that go through the model at once: whole examples, without padding. More is faster and
    /// takes more memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub micro_batch_tokens: Option<u32>,

    /// Highest learning rate, reached after warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub learning_rate: Option<f64>,

    /// Multiplies the learning rate that would be chosen, in place of `learningRate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub learning_rate_multiplier: Option<f64>,

    /// How the learning rate moves after warm-up: `Constant`, `Linear` (to zero; the default) or `Cosine`
    /// (to zero).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,

    /// Steps over which the learning rate rises from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,

    /// The same as a share of all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub warmup_ratio: Option<f64>,

    /// `AdamW`'s decoupled weight decay. 0 for LoRA and 0.01 for full fine-tuning when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub weight_decay: Option<f64>,

    /// `AdamW`'s decay of the mean of gradients. 0.9 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub adam_beta1: Option<f64>,

    /// `AdamW`'s decay of the mean of squared gradients. 0.999 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub adam_beta2: Option<f64>,

    /// `AdamW`'s term that keeps the division finite. 1e-8 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub adam_epsilon: Option<f64>,

    /// Gradients are scaled down to this global norm; 0 is no limit. 1 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_grad_norm: Option<f64>,

    /// Longest example in tokens. That of the data when unset, but no more than the model's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub max_sequence_length: Option<u32>,

    /// What frozen weights and activations are stored in: `FP32` or `BF16`. `BF16` when unset and the
    /// processor multiplies it in hardware. What is trained is always kept in 32 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,

    /// Keep only what enters each block and compute the rest again: less memory for a third more time.
    /// When unset, on where the run would not fit into memory without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_checkpointing: Option<bool>,

    /// Start of every random choice: splits, order, initial weights, dropout. 42 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}
