//! The configuration in the header of a GGUF file, under llama.cpp's key names.
//!
//! The header does not say everything: what it leaves out takes the default of transformers'
//! configuration class, as transformers does when it loads such a file.

use super::rope::{long_rope_attention_factor, yarn_scale};
use super::{Activation, ConfigError, LayerType, ModelConfig, ModelType, Rope, RopeScaling};
use crate::weights::gguf::Gguf;

/// Keys of one architecture: `{arch}.{name}`.
struct Keys<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.gguf.integer(&self.key(name))
    }

    fn float(&self, name: &str) -> Option<f64> {
        self.gguf.float(&self.key(name))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.gguf.text(&self.key(name))
    }

    fn need(&self, name: &str) -> Result<i64, ConfigError> {
        Ok(self.integer(name).ok_or_else(|| self.gguf.missing(&self.key(name)))?)
    }
}

/// The architecture in GGUF's spelling.
pub(crate) fn architecture(gguf: &Gguf) -> Result<&str, ConfigError> {
    Ok(gguf.text("general.architecture").ok_or_else(|| gguf.missing("general.architecture"))?)
}

/// Reads the header.
pub(super) fn read(gguf: &Gguf) -> Result<ModelConfig, ConfigError> {
    let arch = architecture(gguf)?;
    let model_type = model_type(gguf, arch)?;
    let keys = Keys { gguf, arch };
    let gemma = model_type == ModelType::Gemma3Text;
    let layers = keys.need("block_count")?;
    let hidden_size = keys.need("embedding_length")?;
    let heads = keys.need("attention.head_count")?;
    let per_head = hidden_size.checked_div(heads).unwrap_or_default();
    let max_position_embeddings = keys.need("context_length")?;
    let sliding_window = sliding_window(&keys, model_type);
    let has = |name: &str| gguf.tensor(name).is_some();
    let id = |name: &str| gguf.integer(name).and_then(|id| u32::try_from(id).ok());
    let rope = rope(&keys, model_type, max_position_embeddings)?;
    Ok(ModelConfig {
        model_type,
        vocab_size: vocab_size(&keys)?,
        hidden_size,
        intermediate_size: keys.need("feed_forward_length")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: keys.integer("attention.head_count_kv").unwrap_or(heads),
        head_dim: head_dim(&keys, model_type, per_head),
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon").unwrap_or(match model_type {
            ModelType::Phi3 => 1e-5,
            _ => 1e-6,
        }),
        hidden_act: if gemma { Activation::GeluTanh } else { Activation::Silu },
        tie_word_embeddings: !has("output.weight"),
        max_position_embeddings,
        attention_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_up.bias"),
        sliding_window,
        layer_types: layer_types(model_type, layers, sliding_window),
        rope,
        rope_local: gemma.then(|| Rope {
            theta: keys.float("rope.freq_base_swa").unwrap_or(10_000.0),
            scaling: RopeScaling::None,
            partial_rotary_factor: 1.0,
        }),
        query_pre_attn_scalar: gemma.then(|| gemma_scalar(layers, per_head)),
        bos_token_id: id("tokenizer.ggml.bos_token_id"),
        eos_token_ids: id("tokenizer.ggml.eos_token_id").into_iter().collect(),
        pad_token_id: id("tokenizer.ggml.padding_token_id"),
        dtype: None,
    })
}

fn model_type(gguf: &Gguf, arch: &str) -> Result<ModelType, ConfigError> {
    // llama.cpp calls Mistral a llama; only the name tells, and transformers goes by it as well.
    let mistral = gguf.text("general.name") == Some("mistral");
    Ok(match arch {
        "llama" if mistral => ModelType::Mistral,
        "llama" => ModelType::Llama,
        "qwen2" => ModelType::Qwen2,
        "qwen3" => ModelType::Qwen3,
        "gemma3" => ModelType::Gemma3Text,
        "phi3" => ModelType::Phi3,
        other => {
            return Err(ConfigError::UnknownModelType {
                path: gguf.path().to_owned(),
                found: other.to_owned(),
            });
        }
    })
}

/// The rows of the embedding are the truth; the list of tokens can be shorter.
fn vocab_size(keys: &Keys<'_>) -> Result<i64, ConfigError> {
    let rows = keys.gguf.tensor("token_embd.weight").and_then(|tensor| tensor.shape.first());
    if let Some(&rows) = rows {
        return Ok(rows);
    }
    if let Some(size) = keys.integer("vocab_size") {
        return Ok(size);
    }
    let tokens = keys.gguf.count("tokenizer.ggml.tokens");
    Ok(tokens.ok_or_else(|| keys.gguf.missing("tokenizer.ggml.tokens"))? as i64)
}

fn head_dim(keys: &Keys<'_>, model_type: ModelType, per_head: i64) -> i64 {
    match model_type {
        ModelType::Llama | ModelType::Mistral => keys
            .integer("attention.key_length")
            .or_else(|| keys.integer("rope.dimension_count"))
            .unwrap_or(per_head),
        ModelType::Qwen3 => keys.integer("attention.key_length").unwrap_or(128),
        ModelType::Gemma3Text => keys.integer("attention.key_length").unwrap_or(256),
        ModelType::Qwen2 | ModelType::Phi3 => per_head,
    }
}

fn sliding_window(keys: &Keys<'_>, model_type: ModelType) -> Option<i64> {
    let stated = keys.integer("attention.sliding_window").filter(|&window| window > 0);
    match model_type {
        ModelType::Llama | ModelType::Qwen2 | ModelType::Qwen3 => None,
        ModelType::Mistral | ModelType::Gemma3Text => stated.or(Some(4096)),
        ModelType::Phi3 => stated,
    }
}

fn layer_types(model_type: ModelType, layers: i64, window: Option<i64>) -> Vec<LayerType> {
    let sliding = |layer: i64| match model_type {
        ModelType::Gemma3Text => (layer + 1) % 6 != 0,
        ModelType::Mistral | ModelType::Phi3 => window.is_some(),
        ModelType::Llama | ModelType::Qwen2 | ModelType::Qwen3 => false,
    };
    (0..layers)
        .map(|layer| if sliding(layer) { LayerType::Sliding } else { LayerType::Full })
        .collect()
}

/// Gemma 3 scales by its head size, only the 27B model (62 layers) by hidden size over heads.
fn gemma_scalar(layers: i64, per_head: i64) -> f64 {
    if layers == 62 { per_head as f64 } else { 256.0 }
}

fn rope(keys: &Keys<'_>, model: ModelType, positions: i64) -> Result<Rope, ConfigError> {
    let default = if model == ModelType::Gemma3Text { 1_000_000.0 } else { 10_000.0 };
    Ok(Rope {
        theta: keys.float("rope.freq_base").unwrap_or(default),
        scaling: scaling(keys, positions)?,
        partial_rotary_factor: partial_rotary_factor(keys, model),
    })
}

fn partial_rotary_factor(keys: &Keys<'_>, model: ModelType) -> f64 {
    let size = keys.integer("embedding_length").zip(keys.integer("attention.head_count"));
    match (model, keys.integer("rope.dimension_count"), size) {
        (ModelType::Phi3, Some(rotated), Some((hidden, heads))) if heads > 0 => {
            rotated as f64 / (hidden / heads) as f64
        }
        _ => 1.0,
    }
}

fn scaling(keys: &Keys<'_>, positions: i64) -> Result<RopeScaling, ConfigError> {
    if let Some(factors) = fp32_tensor(keys.gguf, "rope_freqs.weight") {
        return Ok(RopeScaling::Factors { factors });
    }
    let original =
        keys.integer("rope.scaling.original_context_length").filter(|&length| length > 0);
    if let (Some(short), Some(long)) = (
        fp32_tensor(keys.gguf, "rope_factors_short.weight"),
        fp32_tensor(keys.gguf, "rope_factors_long.weight"),
    ) {
        let original = original.unwrap_or(positions);
        let factor = positions as f64 / original as f64;
        return Ok(RopeScaling::LongRope {
            short_factor: short,
            long_factor: long,
            original_max_position_embeddings: original,
            attention_factor: keys
                .float("rope.scaling.attn_factor")
                .unwrap_or_else(|| long_rope_attention_factor(factor, original)),
        });
    }
    let factor = keys.float("rope.scaling.factor").filter(|&factor| factor > 0.0);
    let factor = factor.or_else(|| keys.float("rope.scale_linear"));
    match (keys.text("rope.scaling.type"), factor) {
        (Some("none" | "longrope") | None, None) | (Some("none"), _) => Ok(RopeScaling::None),
        (Some("linear") | None, Some(factor)) => Ok(RopeScaling::Linear { factor }),
        (Some("yarn"), Some(factor)) => Ok(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original.unwrap_or(positions),
            beta_fast: keys.float("rope.scaling.yarn_beta_fast").unwrap_or(32.0),
            beta_slow: keys.float("rope.scaling.yarn_beta_slow").unwrap_or(1.0),
            attention_factor: keys
                .float("rope.scaling.attn_factor")
                .filter(|&value| (value - 1.0).abs() > f64::EPSILON)
                .unwrap_or_else(|| yarn_scale(factor, 1.0)),
            truncate: true,
        }),
        (Some(other), _) => Err(ConfigError::UnknownRope {
            path: keys.gguf.path().to_owned(),
            found: other.to_owned(),
        }),
    }
}

fn fp32_tensor(gguf: &Gguf, name: &str) -> Option<Vec<f64>> {
    let tensor = gguf.tensor(name)?;
    let values = gguf.bytes()[tensor.range.clone()].chunks_exact(4);
    Some(values.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect())
}
