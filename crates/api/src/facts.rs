//! What was found out about a model and its data before a run: the inputs of every choice that
//! `plan` makes. Found by `lm` and `train`, or read back from the report of a preflight pod.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::run_spec::Quantization;

/// The shape of a base model, from its `config.json` or its GGUF header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelFacts {
    /// `model_type` of the Hugging Face configuration, such as `llama`.
    pub model_type: String,
    pub parameters: u64,
    pub hidden_size: u64,
    pub intermediate_size: u64,
    pub layers: u64,
    pub attention_heads: u64,
    pub key_value_heads: u64,
    pub head_dim: u64,
    pub vocabulary: u64,
    /// Longest sequence that the model was made for.
    pub context: u64,
    pub tied_embeddings: bool,
    /// How the checkpoint itself holds the matrices of linear layers.
    #[serde(default, skip_serializing_if = "Quantization::is_none")]
    pub quantization: Quantization,
    /// Every linear layer that an adapter may target: name, outputs, inputs.
    pub linears: Vec<LinearFacts>,
}

/// One linear layer, by the name it has in the checkpoint, without `.weight`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinearFacts {
    pub name: String,
    pub outputs: u64,
    pub inputs: u64,
}

/// What a full read of the data showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataFacts {
    /// SHA-256 over the files' contents in order: `sha256:…`.
    pub digest: String,
    pub train: SplitFacts,
    pub validation: SplitFacts,
    pub test: SplitFacts,
    /// The format that was stated or detected.
    pub format: Option<crate::run_spec::Format>,
    /// Examples left out because they were too long or copies.
    pub dropped: u64,
    pub truncated: u64,
    /// The first faults, at most [`MAX_FAULTS_SHOWN`], in file order.
    pub faults: Vec<Fault>,
    /// All faults, also those that are not in `faults`.
    pub fault_count: u64,
}

/// How many faults are shown; all are counted.
pub const MAX_FAULTS_SHOWN: usize = 20;

/// One split of the data, in tokens of the base model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitFacts {
    pub examples: u64,
    pub tokens: u64,
    /// Tokens that the loss is taken on.
    pub label_tokens: u64,
    pub longest: u64,
    /// Length of each example in tokens, ascending, thinned to at most 1,000 quantiles.
    pub lengths: Vec<u32>,
    /// Tokens that all examples begin with and from which none of them predicts: they are packed once for all of
    /// a micro-batch.
    #[serde(default)]
    pub shared: u64,
}

/// The machine that the run will be on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineFacts {
    pub cpus: u64,
    /// Bytes of memory that the run may use.
    pub memory: u64,
    /// Whether the CPU multiplies bf16 in hardware (AVX-512 BF16 or AMX).
    pub bf16: bool,
    pub gpu: Option<GpuFacts>,
}

/// A GPU that LibTorch can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuFacts {
    pub product: String,
    pub memory: u64,
}
