//! The tokenizer of a Hugging Face folder: `tokenizer.json`, and what `tokenizer_config.json`,
//! `generation_config.json`, `config.json` and `chat_template.jinja` add to it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::tokenizer::Tokenizer as Inner;

use super::{Description, TokenizerError};
use crate::files::{CONFIG, ModelFiles, read as read_file};

/// The special tokens that a configuration may name.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

pub(super) fn read(
    files: &ModelFiles,
    folder: &Path,
) -> Result<(Inner, Description), TokenizerError> {
    let path = folder.join("tokenizer.json");
    if !path.exists() {
        return Err(TokenizerError::Missing { path: folder.to_owned() });
    }
    let inner = Inner::from_bytes(read_file(&path)?)
        .map_err(|error| TokenizerError::Invalid { path, reason: error.to_string() })?;
    let config = files.json("tokenizer_config.json")?.unwrap_or(Value::Null);
    let special_tokens = files.json("special_tokens_map.json")?.unwrap_or(Value::Null);
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    let description = Description {
        special: special_tokens_of(&[&special_tokens, &config]),
        end_ids: end_ids(files)?,
        templates: templates(files, folder, &config)?,
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
    };
    Ok((inner, description))
}

/// A token is named by its text or by an object that holds it; later sources win.
fn special_tokens_of(sources: &[&Value]) -> BTreeMap<String, String> {
    let mut special = BTreeMap::new();
    for (source, role) in sources.iter().flat_map(|source| ROLES.map(|role| (source, role))) {
        let token = source.get(role);
        let text =
            token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
        if let Some(text) = text {
            special.insert(role.to_owned(), text.to_owned());
        }
    }
    special
}

/// Ends by number: `eos_token_id` of the generation configuration and of the model's.
fn end_ids(files: &ModelFiles) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::new();
    for name in ["generation_config.json", CONFIG] {
        let config = files.json(name)?.unwrap_or(Value::Null);
        let text_config = config.get("text_config").unwrap_or(&Value::Null);
        for value in [&config, text_config].into_iter().filter_map(|c| c.get("eos_token_id")) {
            let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            ids.extend(list.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
        }
    }
    Ok(ids)
}

/// Templates by name. A file of its own wins over the entry in the configuration.
fn templates(
    files: &ModelFiles,
    folder: &Path,
    config: &Value,
) -> Result<BTreeMap<String, String>, TokenizerError> {
    let mut templates = BTreeMap::new();
    let old = files.json("chat_template.json")?.unwrap_or(Value::Null);
    for value in [old.get("chat_template"), config.get("chat_template")].into_iter().flatten() {
        if let Some(text) = value.as_str() {
            templates.insert("default".to_owned(), text.to_owned());
        }
        for entry in value.as_array().into_iter().flatten() {
            let field = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
            if let (Some(name), Some(text)) = (field("name"), field("template")) {
                templates.insert(name, text);
            }
        }
    }
    for (name, file) in [
        ("default", "chat_template.jinja"),
        ("tool_use", "additional_chat_templates/tool_use.jinja"),
    ] {
        let path = folder.join(file);
        if path.exists() {
            let text = String::from_utf8_lossy(&read_file(&path)?).into_owned();
            templates.insert(name.to_owned(), text);
        }
    }
    Ok(templates)
}
