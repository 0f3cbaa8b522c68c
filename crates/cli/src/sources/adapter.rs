//! Adapters: a run's folder, an adapter's own folder, or an image.

use std::path::{Path, PathBuf};

use oci::Root;
use serde_json::Value;

use super::{Tell, is_image, registry};
use crate::args::RegistryArgs;
use crate::failure::Failure;

/// Names of what is looked for.
const ADAPTER: &str = "adapter_config.json";
const MODEL: &str = "config.json";

/// The result of a run, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalAdapter {
    /// PEFT's format, and how the adapter names its base model.
    Peft { folder: PathBuf, base_model: Option<String> },
    /// The whole model, after full fine-tuning.
    Full { folder: PathBuf },
}

/// Finds or fetches an adapter.
pub(crate) fn adapter(
    name: &str,
    args: &RegistryArgs,
    tell: Tell<'_>,
) -> Result<LocalAdapter, Failure> {
    if Path::new(name).exists() || !is_image(name) {
        return find_in(Path::new(name));
    }
    find_in(&registry::pull(name, Root::Data, args, tell)?.folder)
}

/// Looks in the folder itself and where a run puts its result.
pub(crate) fn find_in(folder: &Path) -> Result<LocalAdapter, Failure> {
    for place in [folder.to_owned(), folder.join("adapter"), folder.join("model")] {
        if place.join(ADAPTER).is_file() {
            let base_model = base_model(&place, folder);
            return Ok(LocalAdapter::Peft { folder: place, base_model });
        }
        if place.join(MODEL).is_file() {
            return Ok(LocalAdapter::Full { folder: place });
        }
    }
    let message = if folder.exists() {
        format!("`{}` holds no adapter: there is no {ADAPTER}", folder.display())
    } else {
        format!("there is no adapter `{}`", folder.display())
    };
    Err(Failure::configuration(message).with_hint(
        "name a run's folder such as `.anneal/NAME`, an adapter's folder, oci:FOLDER or an image",
    ))
}

/// The path in the run's own record where there is one, else what PEFT's file says.
fn base_model(adapter: &Path, run: &Path) -> Option<String> {
    let text = |path: PathBuf, pointer: &str| -> Option<String> {
        let value: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        value.pointer(pointer)?.as_str().map(str::to_owned).filter(|text| !text.is_empty())
    };
    text(run.join("run.json"), "/baseModel/path")
        .or_else(|| text(adapter.join("../run.json"), "/baseModel/path"))
        .or_else(|| text(adapter.join(ADAPTER), "/base_model_name_or_path"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_adapter_is_found_in_a_runs_folder_with_the_model_it_was_trained_on() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("adapter");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(ADAPTER), r#"{"base_model_name_or_path": "x"}"#).unwrap();
        let found = |path: &Path| match find_in(path).unwrap() {
            LocalAdapter::Peft { base_model, .. } => base_model.unwrap(),
            LocalAdapter::Full { .. } => String::new(),
        };
        assert_eq!(found(run.path()), "x");
        std::fs::write(run.path().join("run.json"), r#"{"baseModel": {"path": "m.gguf"}}"#)
            .unwrap();
        assert_eq!(found(run.path()), "m.gguf");
        assert_eq!(found(&folder), "m.gguf");
    }

    #[test]
    fn a_folder_without_an_adapter_is_told() {
        let empty = tempfile::tempdir().unwrap();
        let text = find_in(empty.path()).unwrap_err().text();
        assert!(text.contains("holds no adapter"), "{text}");
    }
}
