//! The files of a Hugging Face folder for a tokenizer that came out of a GGUF file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Tokenizer, TokenizerError, failed};

impl Tokenizer {
    /// `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`, by name. `longest` is the
    /// model's context in tokens.
    pub fn to_files(&self, longest: i64) -> Result<BTreeMap<String, Vec<u8>>, TokenizerError> {
        let tokenizer = self.inner.to_string(true).map_err(failed("write the tokenizer"))?;
        let mut config = Map::new();
        for (role, token) in &self.special {
            config.insert(role.clone(), json!(token));
        }
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        config.insert("model_max_length".to_owned(), json!(longest));
        if let Some(chat) = self.chat() {
            config.insert("chat_template".to_owned(), chat_template(chat));
        }
        let generation =
            json!({"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad});
        let pretty = |value: &Value| format!("{value:#}\n").into_bytes();
        Ok(BTreeMap::from([
            ("tokenizer.json".to_owned(), tokenizer.into_bytes()),
            ("tokenizer_config.json".to_owned(), pretty(&Value::Object(config))),
            ("generation_config.json".to_owned(), pretty(&generation)),
        ]))
    }
}

/// One template as text, two as transformers lists them.
fn chat_template(chat: &crate::chat::ChatTemplate) -> Value {
    match chat.tools_source() {
        None => json!(chat.source()),
        Some(tools) => json!([
            {"name": "default", "template": chat.source()},
            {"name": "tool_use", "template": tools},
        ]),
    }
}
