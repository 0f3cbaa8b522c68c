//! `config.json` in old and new spellings, and what is refused.

use std::fs;

use lm::config::{ConfigError, ModelConfig};
use lm::files::ModelFiles;
use serde_json::{Value, json};

use super::{assert_config, fixture, json as read_json, told};

fn open(config: &Value) -> (Result<ModelConfig, ConfigError>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    (ModelConfig::open(&ModelFiles::Folder(folder.path().to_owned())), folder)
}

#[test]
fn every_spelling_is_read_as_transformers_does() {
    let cases = read_json(&fixture("configs.json"));
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (config, _folder) = open(&case["config"]);
        let config = config.unwrap();
        assert_config(&config, &case["expected"], name);
        for (field, found) in
            [("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)]
        {
            if let Some(stated) = case["config"].get(field) {
                assert_eq!(found.map(u64::from), stated.as_u64(), "{name}: {field}");
            }
        }
        if case["config"].get("eos_token_id").is_some() {
            let expected = &case["expected"]["eos_token_ids"];
            assert_eq!(&Value::from(config.eos_token_ids.clone()), expected, "{name}");
        }
    }
}

fn llama(field: &str, value: Value) -> Value {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2,
    });
    config[field] = value;
    config
}

#[track_caller]
fn refused(config: &Value, expected: &str) {
    let (outcome, folder) = open(config);
    let error = outcome.unwrap_err();
    assert_eq!(told(&error, folder.path()), expected);
    assert!(error.hint().is_some());
}

#[test]
fn an_unknown_architecture_is_refused_by_name() {
    refused(
        &llama("model_type", json!("mamba2")),
        "cannot use model MODEL/config.json: its architecture `mamba2` is not supported; supported are \
         llama, mistral, qwen2, qwen3, gemma3_text, phi3",
    );
}

#[test]
fn an_unknown_rotary_embedding_is_refused_by_name() {
    refused(
        &llama("rope_scaling", json!({"rope_type": "dynamic", "factor": 2.0})),
        "cannot use model MODEL/config.json: its rotary embedding type `dynamic` is not supported; \
         supported are default, linear, llama3, yarn, longrope",
    );
}

#[test]
fn a_quantized_checkpoint_is_refused() {
    refused(
        &llama("quantization_config", json!({"quant_method": "awq"})),
        "cannot use model MODEL/config.json: a checkpoint quantized with `awq` is not supported",
    );
}

#[test]
fn a_missing_field_is_named() {
    refused(
        &llama("hidden_size", Value::Null),
        "cannot use model MODEL/config.json: `hidden_size` is missing",
    );
}

#[test]
fn a_mistyped_field_is_named() {
    refused(
        &llama("hidden_size", json!("8")),
        "cannot use model MODEL/config.json: `hidden_size` is \"8\", and has to be a whole number",
    );
    refused(
        &llama("rope_scaling", json!({"rope_type": "linear"})),
        "cannot use model MODEL/config.json: `rope_scaling.factor` is missing",
    );
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    refused(
        &llama("num_key_value_heads", json!(3)),
        "cannot use model MODEL: `num_key_value_heads` is 3, which does not divide the 2 attention heads",
    );
    refused(
        &llama("num_attention_heads", json!(0)),
        "cannot use model MODEL: `num_attention_heads` is 0, and has to be at least 1",
    );
}
