//! What a base model is on disk: a Hugging Face folder or one GGUF file.
//!
//! [`ModelFiles::open`] only looks at names, headers and sizes, so that a wrong path, a missing shard or
//! a truncated download is told at once and by name. It reads no weights.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::weights::gguf::{Gguf, GgufError};
use crate::weights::safetensors::{SafetensorsError, Shard};

/// File names of a Hugging Face folder.
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The files of a base model, found and checked to be all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// A folder with `config.json`, `tokenizer.json` and one or more `.safetensors` files.
    Folder(PathBuf),
    /// One GGUF file, which holds configuration, tokenizer and weights.
    Gguf(PathBuf),
}

/// Why a path cannot be used as a base model.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is nothing at the path.
    #[error("cannot open base model {}: no such file or folder", path.display())]
    NotFound { path: PathBuf },
    /// The path is a file that is not GGUF, or a folder that holds no model.
    #[error("cannot open base model {}: {found}", path.display())]
    NotAModel { path: PathBuf, found: String },
    /// Several GGUF files: which one is meant is for the user to say.
    #[error("cannot open base model {}: it holds {} GGUF files ({})", path.display(), names.len(), names.join(", "))]
    Ambiguous { path: PathBuf, names: Vec<String> },
    /// A folder has `config.json` but no weights that can be read.
    #[error("cannot open base model {}: no weights ({SINGLE} or {INDEX}){found}", path.display())]
    NoWeights { path: PathBuf, found: String },
    /// The index names files that are not in the folder.
    #[error(
        "cannot open base model {}: {INDEX} names {total} files and {} of them are missing: {}",
        path.display(), missing.len(), missing.join(", ")
    )]
    MissingShards { path: PathBuf, total: usize, missing: Vec<String> },
    /// The index is not what an index is.
    #[error("cannot read {}: {reason}", path.display())]
    BadIndex { path: PathBuf, reason: String },
    /// A GGUF file is damaged or of a kind that cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A safetensors file is damaged.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// The system refused to read.
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl FilesError {
    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } => {
                "check the path; it is relative to the folder that anneal is started in"
            }
            Self::NotAModel { .. } => {
                "name a folder with config.json and .safetensors files, or a .gguf file"
            }
            Self::Ambiguous { .. } => "name one of the files instead of the folder",
            Self::NoWeights { .. } => {
                "save the model with safe_serialization, or download its .safetensors files"
            }
            Self::MissingShards { .. } | Self::BadIndex { .. } => "download the model again",
            Self::Gguf(error) => return error.hint(),
            Self::Safetensors(_) => "download the file again, and compare its size and SHA-256",
            Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }
}

impl ModelFiles {
    /// Finds the model at `path` and checks that what it needs is there and of full length.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let meta = std::fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => FilesError::NotFound { path: path.to_owned() },
            _ => FilesError::Io { path: path.to_owned(), source },
        })?;
        if meta.is_dir() { open_folder(path) } else { open_file(path) }
    }

    /// The folder or the file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Gguf(path) => path,
        }
    }

    /// The files that hold the weights, in a stable order.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>, FilesError> {
        match self {
            Self::Gguf(path) => Ok(vec![path.clone()]),
            Self::Folder(folder) => {
                let single = folder.join(SINGLE);
                if single.exists() {
                    return Ok(vec![single]);
                }
                let names = shard_names(folder)?;
                Ok(names.into_iter().map(|name| folder.join(name)).collect())
            }
        }
    }

    /// Reads and parses a JSON file of the folder; `None` where there is none or the model is a GGUF.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>, FilesError> {
        let Self::Folder(folder) = self else { return Ok(None) };
        let path = folder.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let text = read(&path)?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| FilesError::BadIndex { path, reason: format!("not JSON: {error}") })?;
        Ok(Some(value))
    }
}

fn open_file(path: &Path) -> Result<ModelFiles, FilesError> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return Err(FilesError::NotAModel {
            path: path.to_owned(),
            found: "it is a weights file, not the folder of a model".to_owned(),
        });
    }
    Gguf::open(path)?;
    Ok(ModelFiles::Gguf(path.to_owned()))
}

fn open_folder(path: &Path) -> Result<ModelFiles, FilesError> {
    if !path.join(CONFIG).exists() {
        return open_lone_gguf(path);
    }
    let files = ModelFiles::Folder(path.to_owned());
    if !path.join(SINGLE).exists() {
        if !path.join(INDEX).exists() {
            // Repositories of GGUF files often carry the original configuration as well.
            if let [name] = gguf_names(path)?.as_slice() {
                return open_file(&path.join(name));
            }
            let found = other_weights(path)?;
            return Err(FilesError::NoWeights { path: path.to_owned(), found });
        }
        let names = shard_names(path)?;
        let missing: Vec<String> =
            names.iter().filter(|name| !path.join(name).exists()).cloned().collect();
        if !missing.is_empty() {
            let total = names.len();
            return Err(FilesError::MissingShards { path: path.to_owned(), total, missing });
        }
    }
    for file in files.weight_files()? {
        Shard::open(&file)?;
    }
    Ok(files)
}

/// The model's folder or GGUF file in an image that is mounted: below `/models` or `/data`.
pub fn in_mount(mount: &Path) -> PathBuf {
    let folders = ["models", "data"].map(|name| mount.join(name));
    let folder = folders.iter().find(|folder| folder.is_dir()).unwrap_or(&folders[0]);
    in_folder(folder)
}

/// The folder itself where it has `config.json`, or the one folder or GGUF file that it holds.
pub fn in_folder(folder: &Path) -> PathBuf {
    if folder.join(CONFIG).is_file() {
        return folder.to_owned();
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let visible: Vec<PathBuf> = visible.map(|entry| entry.path()).collect();
    match visible.as_slice() {
        [one] if one.is_dir() || one.extension().is_some_and(|ending| ending == "gguf") => {
            one.clone()
        }
        _ => folder.to_owned(),
    }
}

/// A folder without `config.json` is still a model when it holds exactly one GGUF file.
fn open_lone_gguf(path: &Path) -> Result<ModelFiles, FilesError> {
    let all = names_in(path)?.len();
    let names = gguf_names(path)?;
    match names.as_slice() {
        [name] => open_file(&path.join(name)),
        [] if all == 0 => {
            Err(FilesError::NotAModel { path: path.to_owned(), found: "it is empty".to_owned() })
        }
        [] => Err(FilesError::NotAModel {
            path: path.to_owned(),
            found: format!("it has no {CONFIG} and no .gguf file"),
        }),
        _ => Err(FilesError::Ambiguous { path: path.to_owned(), names }),
    }
}

/// The shard file names of the index, each once, sorted.
fn shard_names(folder: &Path) -> Result<BTreeSet<String>, FilesError> {
    let path = folder.join(INDEX);
    let bad = |reason: &str| FilesError::BadIndex { path: path.clone(), reason: reason.to_owned() };
    let index: Value = serde_json::from_slice(&read(&path)?)
        .map_err(|error| bad(&format!("not JSON: {error}")))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("it has no `weight_map`"))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let file =
            file.as_str().ok_or_else(|| bad(&format!("the file of `{tensor}` is not text")))?;
        if file.contains(['/', '\\']) {
            return Err(bad(&format!("the file of `{tensor}` is outside the folder: {file}")));
        }
        names.insert(file.to_owned());
    }
    Ok(names)
}

/// A remark about weights of another format, for the error about missing ones.
fn other_weights(path: &Path) -> Result<String, FilesError> {
    let names = names_in(path)?;
    let other = names.iter().find(|name| {
        let path = Path::new(name.as_str());
        path.extension().is_some_and(|end| end == "bin" || end == "pt" || end == "safetensors")
    });
    Ok(other.map_or_else(String::new, |name| format!("; found only {name}")))
}

fn gguf_names(path: &Path) -> Result<Vec<String>, FilesError> {
    let mut names = names_in(path)?;
    names.retain(|name| name.to_ascii_lowercase().ends_with(".gguf"));
    Ok(names)
}

fn names_in(path: &Path) -> Result<Vec<String>, FilesError> {
    let io = |source| FilesError::Io { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    std::fs::read(path).map_err(|source| FilesError::Io { path: path.to_owned(), source })
}
