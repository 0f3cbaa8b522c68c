//! What has to stand beside all weights so that the folder is a model of its own: configuration and
//! tokenizer of the base model. An adapter needs nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::RunSpec;
use api::run_spec::Adapter;
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use serde_json::Value;

use crate::error::{RunError, with_sources};
use crate::files::FileError;
use crate::session::Session;

const CONFIG: &str = "config.json";
/// Trained weights are fp32, whatever the base model's are.
const DTYPE: &str = "float32";

/// Names and contents.
pub(super) fn files(
    spec: &RunSpec,
    session: &Session,
    base: &ModelFiles,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, Vec<u8>>, RunError> {
    match (&spec.adapter, base) {
        (Adapter::Lora(_), _) => Ok(BTreeMap::new()),
        (Adapter::Full, ModelFiles::Folder(folder)) => Ok(copied(folder)?),
        (Adapter::Full, ModelFiles::Gguf(_)) => written(session, tokenizer),
    }
}

/// The base model's own files; its configuration names the number format of the new weights.
fn copied(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, FileError> {
    let mut copies = BTreeMap::new();
    for path in plain_files(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).map_err(FileError::of("read", &path))?;
        let bytes = if name == CONFIG { with_dtype(bytes) } else { bytes };
        copies.insert(name, bytes);
    }
    Ok(copies)
}

/// The same configuration with the right number format; the bytes as they are where nothing names one.
fn with_dtype(bytes: Vec<u8>) -> Vec<u8> {
    // It was read when the model was loaded, so that it is JSON.
    let Ok(mut config) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
    if set_dtype(&mut config) { pretty(&config) } else { bytes }
}

/// Sets the field wherever it is: at the top, and in the part about text of a model that sees as well.
fn set_dtype(config: &mut Value) -> bool {
    let mut changed = false;
    for field in ["dtype", "torch_dtype"] {
        if let Some(dtype) = config.get_mut(field).filter(|dtype| *dtype != DTYPE) {
            *dtype = DTYPE.into();
            changed = true;
        }
    }
    let text = config.get_mut("text_config").is_some_and(set_dtype);
    changed || text
}

/// A GGUF file has all of it in its header; here it becomes files.
fn written(
    session: &Session,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, Vec<u8>>, RunError> {
    let config = session.model().config();
    let mut files = tokenizer.to_files(config.max_position_embeddings).map_err(|error| {
        RunError::configuration(with_sources(&error), "use the model's Hugging Face folder")
    })?;
    files.insert(CONFIG.to_owned(), pretty(&config.to_json(DTYPE)));
    Ok(files)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// JSON, text and template files directly in a model's folder, without the index of its shards.
fn plain_files(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries: Vec<_> = std::fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(FileError::of("read folder", folder))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.retain(|path| {
        let kind = path.extension().and_then(|extension| extension.to_str());
        let index = path.to_string_lossy().ends_with(".index.json");
        path.is_file() && !index && matches!(kind, Some("json" | "jinja" | "txt" | "model"))
    });
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_format_is_named_where_the_base_model_named_one() {
        let text = |config: &str| String::from_utf8(with_dtype(config.into())).unwrap_or_default();
        let wrapped = text(r#"{"torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}"#);
        assert_eq!(wrapped.matches(r#""float32""#).count(), 2, "{wrapped}");
        assert!(!wrapped.contains("bfloat16"), "{wrapped}");
        assert_eq!(text(r#"{"a":1}"#), r#"{"a":1}"#);
    }
}
