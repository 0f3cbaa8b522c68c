//! Tensor names and shapes: GGUF's names turned into Hugging Face's, and what each architecture must have.
//!
//! One table for all architectures, so that missing tensors and wrong shapes are found, all at once and
//! by name, before anything is loaded.

use crate::config::{ModelConfig, ModelType};

/// What a converter to GGUF did to the values of a tensor, and has to be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adjust {
    None,
    /// Rows of the query and key weights of the `llama` architecture are interleaved for GGML's rotary
    /// embedding; this is the number of heads to put them back.
    UnpermuteRows {
        heads: i64,
    },
    /// Gemma's norms are stored as `weight + 1`.
    MinusOne,
}

/// The Hugging Face name of a GGUF tensor; `None` for tensors that are not weights of the model
/// (rotary factors, which the configuration reads).
pub(crate) fn from_gguf(name: &str, model: ModelType) -> Option<String> {
    if let Some(rest) = name.strip_prefix("blk.") {
        let (layer, rest) = rest.split_once('.')?;
        let (part, end) = rest.rsplit_once('.')?;
        return Some(format!("model.layers.{layer}.{}.{end}", layer_part(part, model)?));
    }
    let (part, end) = name.rsplit_once('.')?;
    let part = match part {
        "token_embd" => "model.embed_tokens",
        "output" => "lm_head",
        "output_norm" => "model.norm",
        _ => return None,
    };
    Some(format!("{part}.{end}"))
}

fn layer_part(part: &str, model: ModelType) -> Option<&'static str> {
    let gemma = model == ModelType::Gemma3Text;
    Some(match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        // Gemma's own name for it, and everybody else's.
        "post_attention_norm" | "ffn_norm" => "post_attention_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" if model == ModelType::Phi3 => "mlp.gate_up_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    })
}

/// What has to be undone for a GGUF tensor of architecture `arch`, as transformers does.
pub(crate) fn adjust(name: &str, arch: &str, config: &ModelConfig) -> Adjust {
    match arch {
        "llama" if name.contains(".attn_q.") => {
            Adjust::UnpermuteRows { heads: config.num_attention_heads }
        }
        "llama" if name.contains(".attn_k.") => {
            Adjust::UnpermuteRows { heads: config.num_key_value_heads }
        }
        "gemma3" if name.contains("norm.weight") => Adjust::MinusOne,
        _ => Adjust::None,
    }
}

/// The name without what wrapping models put before it: the text part of a Gemma 3 with vision, or a
/// bare decoder saved without its head.
pub(crate) fn unwrapped(name: &str) -> String {
    for (prefix, replacement) in [
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
    ] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return format!("{replacement}{rest}");
        }
    }
    if ["embed_tokens.", "layers.", "norm."].iter().any(|start| name.starts_with(start)) {
        return format!("model.{name}");
    }
    name.to_owned()
}

/// Every tensor that a model of this configuration needs, with its shape.
///
/// `lm_head.weight` is left out where the embeddings are tied.
pub fn expected_tensors(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
    let hidden = config.hidden_size;
    let mut tensors =
        vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
    for layer in 0..config.num_hidden_layers {
        for (name, shape) in layer_tensors(config) {
            tensors.push((format!("model.layers.{layer}.{name}"), shape));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        tensors.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    tensors
}

fn layer_tensors(config: &ModelConfig) -> Vec<(&'static str, Vec<i64>)> {
    let (hidden, inner, head) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let query = config.num_attention_heads * head;
    let key = config.num_key_value_heads * head;
    let mut tensors = vec![("input_layernorm.weight", vec![hidden])];
    if config.model_type == ModelType::Phi3 {
        tensors.push(("self_attn.qkv_proj.weight", vec![query + 2 * key, hidden]));
        tensors.push(("mlp.gate_up_proj.weight", vec![2 * inner, hidden]));
    } else {
        tensors.push(("self_attn.q_proj.weight", vec![query, hidden]));
        tensors.push(("self_attn.k_proj.weight", vec![key, hidden]));
        tensors.push(("self_attn.v_proj.weight", vec![key, hidden]));
        tensors.push(("mlp.gate_proj.weight", vec![inner, hidden]));
        tensors.push(("mlp.up_proj.weight", vec![inner, hidden]));
    }
    tensors.push(("self_attn.o_proj.weight", vec![hidden, query]));
    tensors.push(("mlp.down_proj.weight", vec![hidden, inner]));
    tensors.push(("post_attention_layernorm.weight", vec![hidden]));
    if config.attention_bias {
        tensors.push(("self_attn.q_proj.bias", vec![query]));
        tensors.push(("self_attn.k_proj.bias", vec![key]));
        tensors.push(("self_attn.v_proj.bias", vec![key]));
    }
    if config.output_bias {
        tensors.push(("self_attn.o_proj.bias", vec![hidden]));
    }
    if config.mlp_bias {
        tensors.push(("mlp.gate_proj.bias", vec![inner]));
        tensors.push(("mlp.up_proj.bias", vec![inner]));
        tensors.push(("mlp.down_proj.bias", vec![hidden]));
    }
    if matches!(config.model_type, ModelType::Qwen3 | ModelType::Gemma3Text) {
        tensors.push(("self_attn.q_norm.weight", vec![head]));
        tensors.push(("self_attn.k_norm.weight", vec![head]));
    }
    if config.model_type == ModelType::Gemma3Text {
        tensors.push(("pre_feedforward_layernorm.weight", vec![hidden]));
        tensors.push(("post_feedforward_layernorm.weight", vec![hidden]));
    }
    tensors
}

/// A linear layer that an adapter may attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearShape {
    /// The name in the checkpoint, without `.weight`.
    pub name: String,
    pub out_features: i64,
    pub in_features: i64,
}

/// The linear layers of all blocks, in the order of the model; embeddings and head are not among them.
pub fn linears(config: &ModelConfig) -> Vec<LinearShape> {
    let blocks = expected_tensors(config).into_iter();
    blocks
        .filter(|(name, shape)| name.starts_with("model.layers.") && shape.len() == 2)
        .filter_map(|(name, shape)| {
            let name = name.strip_suffix(".weight")?.to_owned();
            Some(LinearShape { name, out_features: shape[0], in_features: shape[1] })
        })
        .collect()
}
