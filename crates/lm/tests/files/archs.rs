//! GGUF files of each architecture: configuration, names, and values put back as transformers does.

use lm::config::ModelConfig;
use lm::files::ModelFiles;
use lm::weights::Weights;
use tch::Kind;

use super::{assert_config, fixture, json, tensor};

fn check(name: &str) {
    let files = ModelFiles::open(&fixture(&format!("archs/{name}.gguf"))).unwrap();
    let config = ModelConfig::open(&files).unwrap();
    assert_config(&config, &json(&fixture(&format!("archs/{name}.json"))), name);
    let found = Weights::open(&files).unwrap();
    found.check(&config).unwrap();
    let expected = Weights::open_file(&fixture(&format!("archs/{name}.safetensors"))).unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
    for tensor_name in expected.names() {
        let a = tensor(&found, tensor_name, Kind::Float);
        let b = tensor(&expected, tensor_name, Kind::Float);
        assert!(a.equal(&b), "{name}: {tensor_name} differs");
    }
}

#[test]
fn llama_heads_are_put_back_in_order() {
    check("llama");
}

#[test]
fn llama_with_a_head_of_its_own() {
    check("llama_untied");
}

#[test]
fn qwen2_has_biases() {
    check("qwen2");
}

#[test]
fn qwen3_has_head_norms() {
    check("qwen3");
}

#[test]
fn gemma3_norms_lose_the_one_that_was_added() {
    check("gemma3");
}

#[test]
fn phi3_has_joined_layers() {
    check("phi3");
}
