//! `config.json` for a model whose base was a GGUF file, in spellings that transformers 4 and 5 both read.

use serde_json::{Map, Value, json};

use super::{Activation, LayerType, ModelConfig, ModelType, Rope, RopeScaling};

impl ModelConfig {
    /// The configuration as a Hugging Face folder has it, for weights of the number format `dtype`.
    pub fn to_json(&self, dtype: &str) -> Value {
        let mut fields = self.common();
        fields.insert("torch_dtype".to_owned(), json!(dtype));
        fields.extend(self.own());
        fields.insert("rope_theta".to_owned(), json!(self.rope.theta));
        if let Some(scaling) = scaling(&self.rope, self.max_position_embeddings) {
            fields.insert("rope_scaling".to_owned(), scaling);
        }
        if let RopeScaling::LongRope { original_max_position_embeddings, .. } = self.rope.scaling {
            let name = "original_max_position_embeddings".to_owned();
            fields.insert(name, json!(original_max_position_embeddings));
        }
        Value::Object(fields)
    }

    fn common(&self) -> Map<String, Value> {
        let fields = json!({
            "architectures": [self.model_type.architecture()],
            "model_type": self.model_type.as_str(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": ids(&self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
        });
        let Value::Object(fields) = fields else { return Map::new() };
        fields
    }

    /// The fields that one architecture has and others lack.
    fn own(&self) -> Map<String, Value> {
        let act = match self.hidden_act {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
        };
        let fields = match self.model_type {
            ModelType::Llama => json!({
                "hidden_act": act,
                "attention_bias": self.attention_bias,
                "mlp_bias": self.mlp_bias,
            }),
            ModelType::Mistral => json!({"hidden_act": act, "sliding_window": self.sliding_window}),
            ModelType::Qwen2 => json!({"hidden_act": act, "use_sliding_window": false}),
            ModelType::Qwen3 => json!({
                "hidden_act": act,
                "attention_bias": self.attention_bias,
                "use_sliding_window": false,
            }),
            ModelType::Phi3 => json!({
                "hidden_act": act,
                "sliding_window": self.sliding_window,
                "partial_rotary_factor": self.rope.partial_rotary_factor,
            }),
            ModelType::Gemma3Text => json!({
                "hidden_activation": act,
                "attention_bias": self.attention_bias,
                "sliding_window": self.sliding_window,
                "layer_types": self.layer_types.iter().map(|kind| match kind {
                    LayerType::Full => "full_attention",
                    LayerType::Sliding => "sliding_attention",
                }).collect::<Vec<_>>(),
                // Transformers takes nothing but a whole number.
                "query_pre_attn_scalar": self.query_pre_attn_scalar.map(|scalar| scalar as i64),
                "rope_local_base_freq": self.rope_local.as_ref().map(|rope| rope.theta),
            }),
        };
        let Value::Object(fields) = fields else { return Map::new() };
        fields
    }
}

impl ModelType {
    /// The class of transformers.
    fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma3Text => "Gemma3ForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
        }
    }
}

/// One id by itself, several as a list.
fn ids(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    }
}

fn scaling(rope: &Rope, positions: i64) -> Option<Value> {
    Some(match &rope.scaling {
        RopeScaling::None => return None,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            attention_factor,
            truncate,
        } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original_max_position_embeddings,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "attention_factor": attention_factor,
            "truncate": truncate,
        }),
        RopeScaling::LongRope { short_factor, long_factor, attention_factor, .. } => json!({
            "rope_type": "longrope",
            "short_factor": short_factor,
            "long_factor": long_factor,
            "attention_factor": attention_factor,
        }),
        RopeScaling::Factors { factors } => factors_of(factors, rope, positions),
    })
}

/// GGUF files carry the result of Llama 3.1's formula: the parameters that give it, where they are the
/// published ones, else the factors themselves, which LongRoPE takes as they are.
fn factors_of(factors: &[f64], rope: &Rope, positions: i64) -> Value {
    const CONTEXT: f64 = 8192.0;
    let dimensions = 2.0 * factors.len() as f64;
    for factor in [8.0, 32.0] {
        let expected = |index: usize| {
            let turns =
                rope.theta.powf(-2.0 * index as f64 / dimensions) * CONTEXT / std::f64::consts::TAU;
            let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        let close =
            |(index, given): (usize, &f64)| (expected(index) - given).abs() <= 1e-4 * given.abs();
        if factors.iter().enumerate().all(close) {
            return json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": CONTEXT as i64,
            });
        }
    }
    json!({
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "factor": 1.0,
        "original_max_position_embeddings": positions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(factors: &[f64]) -> Rope {
        let scaling = RopeScaling::Factors { factors: factors.to_vec() };
        Rope { theta: 500_000.0, scaling, partial_rotary_factor: 1.0 }
    }

    #[test]
    fn published_factors_get_their_names_back_and_others_stay_as_they_are() {
        // As llama.cpp's converter writes them for Llama 3.2 1B (head of 64).
        let published: Vec<f64> = (0..32)
            .map(|index| {
                let wave = std::f64::consts::TAU * 500_000_f64.powf(f64::from(index) / 32.0);
                let (long, short) = (8192.0, 2048.0);
                if wave < short {
                    1.0
                } else if wave > long {
                    32.0
                } else {
                    let smooth = (8192.0 / wave - 1.0) / 3.0;
                    1.0 / ((1.0 - smooth) / 32.0 + smooth)
                }
            })
            .collect();
        let written = scaling(&rope(&published), 131_072).unwrap_or_default();
        assert_eq!(written["rope_type"], "llama3");
        assert_eq!(written["factor"], 32.0);
        let written = scaling(&rope(&[1.0, 2.0, 3.0]), 4096).unwrap_or_default();
        assert_eq!(written["short_factor"], json!([1.0, 2.0, 3.0]));
    }
}
