//! Base models as files: every expected value comes from transformers, gguf-py or tokenizers
//! (`tests/numerics/scripts/make_file_fixtures.py`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod archs;
mod bad_files;
mod bad_weights;
mod chat;
mod configs;
mod quants;
mod smollm2;
mod tokenizers;
mod words;

use std::path::{Path, PathBuf};

use lm::config::{Activation, LayerType, ModelConfig, Rope, RopeScaling};
use lm::weights::{Weights, expected_tensors};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// A file or folder of the fixtures.
fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/numerics/fixtures/files");
    root.join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tensor(weights: &Weights, name: &str, kind: Kind) -> Tensor {
    weights.tensor(name, kind, Device::Cpu).unwrap()
}

/// An error's text with the folder's own path taken out.
fn told(error: &dyn std::error::Error, folder: &Path) -> String {
    error.to_string().replace(&folder.display().to_string(), "MODEL")
}

/// Compares a configuration with transformers' reading of the same file.
fn assert_config(found: &ModelConfig, expected: &Value, case: &str) {
    let integer = |name: &str| expected[name].as_i64();
    assert_eq!(found.model_type.as_str(), expected["model_type"], "{case}");
    for (name, value) in [
        ("vocab_size", found.vocab_size),
        ("hidden_size", found.hidden_size),
        ("intermediate_size", found.intermediate_size),
        ("num_hidden_layers", found.num_hidden_layers),
        ("num_attention_heads", found.num_attention_heads),
        ("num_key_value_heads", found.num_key_value_heads),
        ("head_dim", found.head_dim),
        ("max_position_embeddings", found.max_position_embeddings),
    ] {
        assert_eq!(Some(value), integer(name), "{case}: {name}");
    }
    assert_eq!(Some(found.rms_norm_eps), expected["rms_norm_eps"].as_f64(), "{case}");
    let act = match found.hidden_act {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    assert_eq!(act, expected["hidden_act"], "{case}");
    assert_eq!(
        Some(found.tie_word_embeddings),
        expected["tie_word_embeddings"].as_bool(),
        "{case}"
    );
    assert_eq!(found.query_pre_attn_scalar, expected["query_pre_attn_scalar"].as_f64(), "{case}");
    let layers: Vec<&str> = found.layer_types.iter().map(|kind| layer_name(*kind)).collect();
    assert_eq!(Value::from(layers), expected["layer_types"], "{case}");
    if found.has_sliding_layers() {
        assert_eq!(found.sliding_window, integer("sliding_window"), "{case}");
    }
    match &found.rope_local {
        None => assert_rope(&found.rope, &expected["rope"], case),
        Some(local) => {
            assert_rope(&found.rope, &expected["rope"]["full_attention"], case);
            assert_rope(local, &expected["rope"]["sliding_attention"], case);
        }
    }
    if let Some(shapes) = expected["shapes"].as_object() {
        let mut tensors = expected_tensors(found);
        tensors.sort();
        let mut expected: Vec<(String, Vec<i64>)> = shapes
            .iter()
            .map(|(name, shape)| (name.clone(), serde_json::from_value(shape.clone()).unwrap()))
            .collect();
        expected.sort();
        assert_eq!(tensors, expected, "{case}");
    }
}

fn layer_name(kind: LayerType) -> &'static str {
    match kind {
        LayerType::Full => "full_attention",
        LayerType::Sliding => "sliding_attention",
    }
}

fn assert_rope(found: &Rope, expected: &Value, case: &str) {
    let number = |name: &str| expected[name].as_f64();
    let list = |name: &str| serde_json::from_value::<Vec<f64>>(expected[name].clone()).unwrap();
    assert_eq!(Some(found.theta), number("rope_theta"), "{case}");
    let partial = number("partial_rotary_factor").unwrap_or(1.0);
    assert!((found.partial_rotary_factor - partial).abs() < 1e-12, "{case}");
    let kind = expected["rope_type"].as_str().unwrap();
    let original = expected["original_max_position_embeddings"].as_i64();
    match &found.scaling {
        RopeScaling::None => assert_eq!(kind, "default", "{case}"),
        RopeScaling::Linear { factor } => {
            assert_eq!((kind, Some(*factor)), ("linear", number("factor")), "{case}");
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            assert_eq!((kind, Some(*factor)), ("llama3", number("factor")), "{case}");
            assert_eq!(Some(*low_freq_factor), number("low_freq_factor"), "{case}");
            assert_eq!(Some(*high_freq_factor), number("high_freq_factor"), "{case}");
            assert_eq!(Some(*original_max_position_embeddings), original, "{case}");
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, .. } => {
            assert_eq!((kind, Some(*factor)), ("yarn", number("factor")), "{case}");
            assert_eq!(Some(*original_max_position_embeddings), original, "{case}");
        }
        RopeScaling::LongRope {
            short_factor,
            long_factor,
            original_max_position_embeddings,
            attention_factor,
        } => {
            assert_eq!(kind, "longrope", "{case}");
            assert_eq!(*short_factor, list("short_factor"), "{case}");
            assert_eq!(*long_factor, list("long_factor"), "{case}");
            assert_eq!(Some(*original_max_position_embeddings), original, "{case}");
            assert!(*attention_factor > 1.0, "{case}");
        }
        RopeScaling::Factors { factors } => assert!(!factors.is_empty(), "{case}"),
    }
}
