//! `config.json`, in the spellings of transformers 4 and 5.

use std::path::Path;

use serde_json::Value;

use super::fields::Fields;
use super::rope::{self, RopeDefaults};
use super::{Activation, ConfigError, LayerType, ModelConfig, ModelType};

/// Reads a parsed `config.json`; `path` is for messages.
pub(super) fn read(path: &Path, value: &Value) -> Result<ModelConfig, ConfigError> {
    let top = Fields::new(path, "", value);
    let name =
        top.text("model_type")?.ok_or_else(|| top.fault("model_type", "is missing".into()))?;
    // A Gemma 3 with vision wraps the text model that is trained here.
    if name == "gemma3" {
        let text = top
            .object("text_config", "text_config.")
            .ok_or_else(|| top.fault("text_config", "is missing".into()))?;
        let mut config = read_text(text, ModelType::Gemma3Text)?;
        let eos = top.token_ids("eos_token_id")?;
        if !eos.is_empty() {
            config.eos_token_ids = eos;
        }
        if let Some(tied) = top.boolean("tie_word_embeddings")? {
            config.tie_word_embeddings = tied;
        }
        config.dtype = config.dtype.or(dtype(top)?);
        return Ok(config);
    }
    let model_type = ModelType::parse(name).ok_or_else(|| ConfigError::UnknownModelType {
        path: path.to_owned(),
        found: name.to_owned(),
    })?;
    read_text(top, model_type)
}

fn read_text(fields: Fields<'_>, model_type: ModelType) -> Result<ModelConfig, ConfigError> {
    refuse_unsupported(fields)?;
    let gemma = model_type == ModelType::Gemma3Text;
    let or = |value: i64| gemma.then_some(value);
    let hidden_size = fields.size("hidden_size", or(2304))?;
    let num_hidden_layers = fields.size("num_hidden_layers", or(26))?;
    let num_attention_heads = fields.size("num_attention_heads", or(8))?;
    let max_position_embeddings =
        fields.size("max_position_embeddings", Some(default_positions(model_type)))?;
    let head_dim = match fields.integer("head_dim")? {
        Some(size) => size,
        None if gemma => 256,
        None if model_type == ModelType::Qwen3 => 128,
        None => hidden_size.checked_div(num_attention_heads).unwrap_or_default(),
    };
    let attention_bias = match model_type {
        ModelType::Qwen2 => true,
        ModelType::Llama | ModelType::Qwen3 | ModelType::Gemma3Text => {
            fields.boolean("attention_bias")?.unwrap_or(false)
        }
        ModelType::Mistral | ModelType::Phi3 => false,
    };
    let sliding_window = sliding_window(fields, model_type)?;
    let defaults = RopeDefaults { model_type, max_position_embeddings };
    Ok(ModelConfig {
        model_type,
        vocab_size: fields.size("vocab_size", or(262_208))?,
        hidden_size,
        intermediate_size: fields.size("intermediate_size", or(9216))?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: key_value_heads(fields, model_type, num_attention_heads)?,
        head_dim,
        rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(match model_type {
            ModelType::Phi3 => 1e-5,
            _ => 1e-6,
        }),
        hidden_act: activation(fields, model_type)?,
        tie_word_embeddings: fields.boolean("tie_word_embeddings")?.unwrap_or(gemma),
        max_position_embeddings,
        attention_bias,
        output_bias: attention_bias && model_type != ModelType::Qwen2,
        mlp_bias: model_type == ModelType::Llama && fields.boolean("mlp_bias")?.unwrap_or(false),
        sliding_window,
        layer_types: layer_types(fields, model_type, num_hidden_layers, sliding_window)?,
        rope: rope::full(fields, &defaults)?,
        rope_local: if gemma { Some(rope::local(fields, &defaults)?) } else { None },
        query_pre_attn_scalar: if gemma {
            Some(fields.number("query_pre_attn_scalar")?.unwrap_or(256.0))
        } else {
            None
        },
        bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: fields.token_ids("eos_token_id")?,
        pad_token_id: fields.token_ids("pad_token_id")?.first().copied(),
        dtype: dtype(fields)?,
    })
}

/// Features that would change the numbers and are not computed here.
fn refuse_unsupported(fields: Fields<'_>) -> Result<(), ConfigError> {
    let refuse = |feature: String| Err(ConfigError::Unsupported { path: fields.path(), feature });
    if let Some(quantization) = fields.get("quantization_config") {
        let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        // The weights say which of its formats they have.
        if method != "bitsandbytes" {
            return refuse(format!("a checkpoint quantized with `{method}`"));
        }
    }
    for name in ["final_logit_softcapping", "attn_logit_softcapping"] {
        if fields.get(name).is_some() {
            return refuse(format!("`{name}`"));
        }
    }
    if fields.boolean("use_bidirectional_attention")? == Some(true) {
        return refuse("bidirectional attention".to_owned());
    }
    Ok(())
}

/// `max_position_embeddings` where a configuration says nothing.
fn default_positions(model_type: ModelType) -> i64 {
    match model_type {
        ModelType::Llama => 2048,
        ModelType::Mistral | ModelType::Gemma3Text => 131_072,
        ModelType::Qwen2 | ModelType::Qwen3 => 32_768,
        ModelType::Phi3 => 4096,
    }
}

fn key_value_heads(
    fields: Fields<'_>,
    model_type: ModelType,
    heads: i64,
) -> Result<i64, ConfigError> {
    let default = match model_type {
        ModelType::Mistral => 8,
        ModelType::Gemma3Text => 4,
        ModelType::Llama | ModelType::Qwen2 | ModelType::Qwen3 | ModelType::Phi3 => heads,
    };
    Ok(fields.integer("num_key_value_heads")?.unwrap_or(default))
}

fn activation(fields: Fields<'_>, model_type: ModelType) -> Result<Activation, ConfigError> {
    // Gemma's own field is `hidden_activation`; its `hidden_act` is a leftover that transformers ignores.
    let (field, default) = match model_type {
        ModelType::Gemma3Text => ("hidden_activation", "gelu_pytorch_tanh"),
        _ => ("hidden_act", "silu"),
    };
    match fields.text(field)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => Err(ConfigError::Unsupported {
            path: fields.path(),
            feature: format!("the activation `{other}`"),
        }),
    }
}

fn sliding_window(fields: Fields<'_>, model: ModelType) -> Result<Option<i64>, ConfigError> {
    // A field that says null switches the window off; an absent one means the class's default.
    let window = |default: Option<i64>| match fields.integer("sliding_window")? {
        None if fields.has("sliding_window") => Ok(None),
        None => Ok(default),
        window => Ok(window),
    };
    match model {
        ModelType::Llama => Ok(None),
        ModelType::Mistral | ModelType::Gemma3Text => window(Some(4096)),
        ModelType::Phi3 => window(None),
        ModelType::Qwen2 | ModelType::Qwen3 => {
            let used = fields.boolean("use_sliding_window")?.unwrap_or(false);
            if used { window(Some(4096)) } else { Ok(None) }
        }
    }
}

fn layer_types(
    fields: Fields<'_>,
    model: ModelType,
    layers: i64,
    window: Option<i64>,
) -> Result<Vec<LayerType>, ConfigError> {
    let sliding_if = |sliding: bool| if sliding { LayerType::Sliding } else { LayerType::Full };
    let lists_layers = matches!(model, ModelType::Qwen2 | ModelType::Qwen3 | ModelType::Gemma3Text);
    if let Some(names) = fields.texts("layer_types")?.filter(|_| lists_layers) {
        return names
            .into_iter()
            .map(|name| match name {
                "full_attention" => Ok(LayerType::Full),
                "sliding_attention" => Ok(LayerType::Sliding),
                other => Err(fields.fault("layer_types", format!("holds `{other}`"))),
            })
            .collect();
    }
    Ok(match model {
        ModelType::Llama => vec![LayerType::Full; layers.max(0) as usize],
        // These limit every layer as soon as they have a window.
        ModelType::Mistral | ModelType::Phi3 => {
            vec![sliding_if(window.is_some()); layers.max(0) as usize]
        }
        ModelType::Qwen2 | ModelType::Qwen3 => {
            let from = fields.integer("max_window_layers")?.unwrap_or(28);
            (0..layers).map(|layer| sliding_if(window.is_some() && layer >= from)).collect()
        }
        ModelType::Gemma3Text => {
            let every = fields.integer("sliding_window_pattern")?.unwrap_or(6).max(1);
            (0..layers).map(|layer| sliding_if((layer + 1) % every != 0)).collect()
        }
    })
}

fn dtype(fields: Fields<'_>) -> Result<Option<String>, ConfigError> {
    let name = match fields.text("dtype")? {
        Some(name) => Some(name),
        None => fields.text("torch_dtype")?,
    };
    Ok(name.map(|name| name.trim_start_matches("torch.").to_owned()))
}
