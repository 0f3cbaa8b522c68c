//! An adapter that was trained, one of its kind that pulls harder, and one whose weights are no numbers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::anneal;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

#[derive(Debug)]
pub(super) struct Variants {
    _folder: TempDir,
    pub(super) plain: PathBuf,
    pub(super) stronger: PathBuf,
    pub(super) poisoned: PathBuf,
}

impl Variants {
    /// From an adapter's image.
    pub(super) fn new(image: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let pulled = folder.path().join("pulled");
        anneal(&["pull", image, &pulled.display().to_string()])?;
        let plain = folder_of(&pulled).context("no adapter came")?;
        let copy = |name: &str| -> Result<PathBuf> {
            let copy = folder.path().join(name);
            fs::create_dir(&copy)?;
            for file in [CONFIG, WEIGHTS] {
                fs::copy(plain.join(file), copy.join(file))?;
            }
            Ok(copy)
        };
        let (stronger, poisoned) = (copy("stronger")?, copy("poisoned")?);
        let mut config: Value = serde_json::from_slice(&fs::read(stronger.join(CONFIG))?)?;
        let alpha = config["lora_alpha"].as_f64().context("no alpha")?;
        config["lora_alpha"] = json!(alpha * 2.0);
        fs::write(stronger.join(CONFIG), config.to_string())?;
        poison(&poisoned.join(WEIGHTS))?;
        Ok(Self { _folder: folder, plain, stronger, poisoned })
    }
}

/// Sets the last number of the file to NaN: all ones, in every number format.
fn poison(weights: &Path) -> Result<()> {
    let mut bytes = fs::read(weights)?;
    ensure!(bytes.len() > 4, "no weights");
    let end = bytes.len();
    bytes[end - 4..].fill(0xff);
    fs::write(weights, bytes)?;
    Ok(())
}

/// The folder below another that holds an adapter.
fn folder_of(folder: &Path) -> Option<PathBuf> {
    if folder.join(CONFIG).is_file() {
        return Some(folder.to_owned());
    }
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).find_map(|path| folder_of(&path))
}
