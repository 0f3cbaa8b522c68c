//! The configuration of a model: one struct for all architectures, whatever file it was read from.
//!
//! `config/json.rs` reads `config.json` in its old and new spellings, `config/gguf.rs` reads the header of
//! a GGUF file. Absent fields take the defaults of transformers' configuration classes. What Anneal cannot
//! compute exactly is refused here by name, before any weight is read.

mod fields;
mod gguf;
mod json;
mod rope;
mod write;

use std::path::PathBuf;

use crate::files::{CONFIG, FilesError, ModelFiles};
use crate::weights::gguf::{Gguf, GgufError};

/// The architectures that can be trained, named as `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelType {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma3Text,
    Phi3,
}

impl ModelType {
    /// All of them, in the order in which messages list them.
    pub const ALL: [Self; 6] =
        [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::Gemma3Text, Self::Phi3];

    /// The name in `config.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3Text => "gemma3_text",
            Self::Phi3 => "phi3",
        }
    }

    /// The architecture of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// The names of all architectures, for messages.
    pub fn known() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

/// The function between the two halves of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU in its tanh approximation.
    GeluTanh,
}

/// How far a layer looks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// Over the whole sequence.
    Full,
    /// Over the last [`ModelConfig::sliding_window`] positions.
    Sliding,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    pub scaling: RopeScaling,
    /// Share of the head's dimensions that are rotated.
    pub partial_rotary_factor: f64,
}

/// How the wavelengths were stretched for longer contexts. Formulas: transformers'
/// `modeling_rope_utils.py`.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: i64,
    },
    /// `YaRN`. `attention_factor` multiplies cosine and sine.
    Yarn {
        factor: f64,
        original_max_position_embeddings: i64,
        beta_fast: f64,
        beta_slow: f64,
        attention_factor: f64,
        truncate: bool,
    },
    /// Phi-3: a divisor for each frequency, `long_factor` for sequences longer than
    /// `original_max_position_embeddings`. `attention_factor` multiplies cosine and sine.
    LongRope {
        short_factor: Vec<f64>,
        long_factor: Vec<f64>,
        original_max_position_embeddings: i64,
        attention_factor: f64,
    },
    /// A divisor for each frequency, as GGUF files of Llama 3.1 and later carry it (`rope_freqs.weight`).
    Factors {
        factors: Vec<f64>,
    },
}

/// Everything that shapes a model.
#[expect(clippy::struct_excessive_bools, reason = "the fields are the configuration's own")]
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub model_type: ModelType,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_key_value_heads: i64,
    pub head_dim: i64,
    pub rms_norm_eps: f64,
    pub hidden_act: Activation,
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: i64,
    /// Whether the query, key and value layers have a bias.
    pub attention_bias: bool,
    /// Whether the attention's output layer has a bias (never in Qwen 2, as `attention_bias` elsewhere).
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// Positions that a [`LayerType::Sliding`] layer sees, the token itself among them.
    pub sliding_window: Option<i64>,
    /// One for each layer.
    pub layer_types: Vec<LayerType>,
    pub rope: Rope,
    /// Gemma 3: the embedding of the sliding layers, where `rope` is that of the full ones.
    pub rope_local: Option<Rope>,
    /// Gemma 3: attention scores are divided by the root of this instead of that of `head_dim`.
    pub query_pre_attn_scalar: Option<f64>,
    pub bos_token_id: Option<u32>,
    /// All ids that the configuration names as ends.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// Number format of the checkpoint, as the configuration spells it (`bfloat16`), where it does.
    pub dtype: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder or file cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An architecture that is not known.
    #[error(
        "cannot use model {}: its architecture `{found}` is not supported; supported are {}",
        path.display(), ModelType::known()
    )]
    UnknownModelType { path: PathBuf, found: String },
    /// A rotary embedding that is not known.
    #[error(
        "cannot use model {}: its rotary embedding type `{found}` is not supported; supported are {}",
        path.display(), rope::KNOWN
    )]
    UnknownRope { path: PathBuf, found: String },
    /// A field has no usable value.
    #[error("cannot use model {}: `{field}` {reason}", path.display())]
    Field { path: PathBuf, field: String, reason: String },
    /// Something that would change the numbers and is not implemented.
    #[error("cannot use model {}: {feature} is not supported", path.display())]
    Unsupported { path: PathBuf, feature: String },
}

impl ConfigError {
    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files(error) => error.hint(),
            Self::Gguf(error) => error.hint(),
            Self::UnknownModelType { .. } | Self::UnknownRope { .. } => {
                Some("choose a base model of a supported architecture".to_owned())
            }
            Self::Field { .. } => {
                Some("download the model's configuration again, or correct it".to_owned())
            }
            Self::Unsupported { .. } => Some(
                "choose another release of the model, unquantized, as GGUF or by bitsandbytes"
                    .to_owned(),
            ),
        }
    }
}

impl ModelConfig {
    /// Reads the configuration of `files` and checks that the model can be computed.
    pub fn open(files: &ModelFiles) -> Result<Self, ConfigError> {
        let config = match files {
            ModelFiles::Folder(folder) => {
                let value = files
                    .json(CONFIG)?
                    .ok_or_else(|| FilesError::NotFound { path: folder.join(CONFIG) })?;
                json::read(&folder.join(CONFIG), &value)?
            }
            ModelFiles::Gguf(path) => gguf::read(&Gguf::open(path)?)?,
        };
        config.check(files)?;
        Ok(config)
    }

    /// Whether any layer's attention is limited to a window.
    pub fn has_sliding_layers(&self) -> bool {
        self.layer_types.contains(&LayerType::Sliding)
    }

    /// Relations between the fields that every model file relies on.
    fn check(&self, files: &ModelFiles) -> Result<(), ConfigError> {
        let fault = |field: &str, reason: String| ConfigError::Field {
            path: files.path().to_owned(),
            field: field.to_owned(),
            reason,
        };
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value < 1 {
                return Err(fault(field, format!("is {value}, and has to be at least 1")));
            }
        }
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        if heads % groups != 0 {
            let reason = format!("is {groups}, which does not divide the {heads} attention heads");
            return Err(fault("num_key_value_heads", reason));
        }
        let rotated = (self.head_dim as f64 * self.rope.partial_rotary_factor) as i64;
        if rotated < 2 || rotated % 2 != 0 || rotated > self.head_dim {
            return Err(fault("head_dim", format!("gives {rotated} rotated dimensions")));
        }
        if self.layer_types.len() as i64 != self.num_hidden_layers {
            let reason = format!(
                "has {} entries for {} layers",
                self.layer_types.len(),
                self.num_hidden_layers
            );
            return Err(fault("layer_types", reason));
        }
        if self.has_sliding_layers() && self.sliding_window.is_none_or(|window| window < 1) {
            return Err(fault("sliding_window", "is needed by sliding layers".to_owned()));
        }
        Ok(())
    }
}
