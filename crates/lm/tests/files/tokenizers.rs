//! Tokens of hard strings, from GGUF vocabularies and from `tokenizer.json`.

use std::fs;
use std::path::Path;

use lm::config::ModelConfig;
use lm::files::ModelFiles;
use lm::tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};

use super::{fixture, json as read_json, told};

/// Holds a tokenizer against rows of texts and ids.
pub(crate) fn check(tokenizer: &Tokenizer, expected: &Value) {
    assert_eq!(Some(tokenizer.vocab_size() as u64), expected["vocab_size"].as_u64());
    for row in expected["cases"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(Value::from(ids.clone()), row["ids"], "{text:?}");
        let special = tokenizer.encode(text, true).unwrap();
        assert_eq!(Value::from(special), row["with_special"], "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), row["decoded"], "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), row["without_special"], "{text:?}");
        assert_eq!(streamed(tokenizer, &ids), row["decoded"], "{text:?}");
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.decode_stream(false);
    let mut text: String = ids.iter().map(|&id| stream.step(id).unwrap()).collect();
    text.push_str(&stream.finish().unwrap());
    text
}

fn check_gguf(name: &str) {
    let path = fixture(&format!("tokenizers/{name}.gguf"));
    let tokenizer = Tokenizer::open(&ModelFiles::Gguf(path)).unwrap();
    check(&tokenizer, &read_json(&fixture(&format!("tokenizers/{name}.json"))));
}

#[test]
fn smollm_splits_digits() {
    check_gguf("smollm");
}

#[test]
fn gpt2_vocabulary() {
    check_gguf("gpt2");
}

#[test]
fn llama3_vocabulary_takes_whole_words() {
    check_gguf("llama_bpe");
}

#[test]
fn qwen2_vocabulary_composes_characters() {
    check_gguf("qwen2");
}

#[test]
fn mistral_nemo_vocabulary() {
    check_gguf("nemo");
}

#[test]
fn sentence_piece_vocabulary_of_llama2() {
    check_gguf("spm");
}

#[test]
fn sentence_piece_vocabulary_of_phi3() {
    check_gguf("phi3");
}

#[test]
fn sentence_piece_vocabulary_of_gemma() {
    check_gguf("gemma3");
}

#[test]
fn tokenizer_json_of_a_folder() {
    for name in ["llama_bpe", "spm"] {
        let folder = fixture(&format!("tokenizers/{name}_folder"));
        let tokenizer = Tokenizer::open(&ModelFiles::Folder(folder)).unwrap();
        check(&tokenizer, &read_json(&fixture(&format!("tokenizers/{name}.json"))));
        // The tokenizer's own end, then the others that config.json names.
        assert_eq!(tokenizer.eos(), [2, 3]);
        assert_eq!(tokenizer.bos(), Some(1));
    }
}

fn copied(change: impl FnOnce(&Path)) -> (Result<Tokenizer, TokenizerError>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("tokenizers/llama_bpe_folder")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    change(folder.path());
    (Tokenizer::open(&ModelFiles::Folder(folder.path().to_owned())), folder)
}

#[test]
fn a_special_token_that_is_not_in_the_vocabulary_is_named() {
    let (outcome, folder) = copied(|folder| {
        let config = json!({"eos_token": "<|missing|>", "bos_token": {"content": "<|im_start|>"}});
        fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    });
    let error = outcome.unwrap_err();
    let expected =
        "cannot load the tokenizer of MODEL: its eos_token `<|missing|>` is not in its vocabulary";
    assert_eq!(told(&error, folder.path()), expected);
    assert!(error.hint().is_some());
}

#[test]
fn a_tokenizer_that_names_no_end_is_refused() {
    let (outcome, folder) = copied(|folder| {
        fs::write(folder.join("tokenizer_config.json"), "{}").unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
    });
    let error = outcome.unwrap_err();
    let expected = "cannot load the tokenizer of MODEL: it names no eos_token";
    assert_eq!(told(&error, folder.path()), expected);
}

#[test]
fn a_tokenizer_that_is_larger_than_the_model_is_told() {
    let path = fixture("tokenizers/smollm.gguf");
    let tokenizer = Tokenizer::open(&ModelFiles::Gguf(path)).unwrap();
    let config = ModelConfig::open(&ModelFiles::Gguf(fixture("archs/llama.gguf"))).unwrap();
    let expected = format!(
        "cannot use the tokenizer with this model: it has {} tokens and the model has room for 48",
        tokenizer.vocab_size()
    );
    assert_eq!(tokenizer.check(&config).unwrap_err().to_string(), expected);
}

#[test]
fn a_missing_tokenizer_is_told() {
    let (outcome, folder) =
        copied(|folder| fs::remove_file(folder.join("tokenizer.json")).unwrap());
    let error = outcome.unwrap_err();
    let expected = "cannot load the tokenizer of MODEL: there is no tokenizer.json";
    assert_eq!(told(&error, folder.path()), expected);
}

#[test]
fn a_damaged_tokenizer_is_told() {
    let (outcome, folder) =
        copied(|folder| fs::write(folder.join("tokenizer.json"), "{\"version\":").unwrap());
    let text = told(&outcome.unwrap_err(), folder.path());
    assert!(text.starts_with("cannot load the tokenizer of MODEL/tokenizer.json: EOF"), "{text}");
}

#[test]
fn chat_templates_are_found_in_every_place() {
    let place = |file: &str, text: &str| {
        let (tokenizer, _folder) = copied(|folder| fs::write(folder.join(file), text).unwrap());
        tokenizer.unwrap().chat().unwrap().source().to_owned()
    };
    let config =
        |template: Value| json!({"eos_token": "<|im_end|>", "chat_template": template}).to_string();
    assert_eq!(place("chat_template.jinja", "a"), "a");
    assert_eq!(place("tokenizer_config.json", &config(json!("b"))), "b");
    let named =
        json!([{"name": "default", "template": "c"}, {"name": "tool_use", "template": "d"}]);
    assert_eq!(place("tokenizer_config.json", &config(named)), "c");
}
