//! A real model: its tokens, its chats, and that all of its weights can be read.

use lm::config::ModelConfig;
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use lm::weights::{Weights, linears};
use serde_json::Value;

use super::{fixture, json, tokenizers};

fn files() -> ModelFiles {
    ModelFiles::open(&testkit::smollm2().unwrap()).unwrap()
}

#[test]
fn texts_have_the_tokens_of_the_original_tokenizer() {
    let tokenizer = Tokenizer::open(&files()).unwrap();
    tokenizers::check(&tokenizer, &json(&fixture("smollm2.json")));
    assert_eq!(tokenizer.eos(), [2]);
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.pad(), Some(2));
}

#[test]
fn chats_have_the_text_and_the_tokens_of_transformers() {
    let tokenizer = Tokenizer::open(&files()).unwrap();
    let fixture = json(&fixture("smollm2.json"));
    for (name, case) in fixture["chats"].as_object().unwrap() {
        let messages: Vec<_> = serde_json::from_value(case["messages"].clone()).unwrap();
        let prompt = case["add_generation_prompt"] == true;
        let text = tokenizer.chat().unwrap().render(&messages, prompt, None).unwrap();
        assert_eq!(text, case["text"], "{name}");
        let ids = tokenizer.encode(&text, false).unwrap();
        assert_eq!(Value::from(ids), case["ids"], "{name}");
    }
}

#[test]
fn the_configuration_and_the_weights_belong_together() {
    let files = files();
    let config = ModelConfig::open(&files).unwrap();
    assert_eq!((config.num_hidden_layers, config.hidden_size, config.head_dim), (30, 576, 64));
    assert!(config.tie_word_embeddings);
    Tokenizer::open(&files).unwrap().check(&config).unwrap();
    let weights = Weights::open(&files).unwrap();
    weights.check(&config).unwrap();
    let elements: i64 =
        weights.names().map(|name| weights.shape(name).unwrap().iter().product::<i64>()).sum();
    assert_eq!(elements, 134_515_008);
    assert_eq!(linears(&config).len(), 30 * 7);
}
