//! The weights of a base model, by their Hugging Face names, whatever file they lie in.
//!
//! Files are memory-mapped. A tensor is decoded in small pieces by all processors, straight into a tensor
//! of the wanted number format, and the pages it was read from are given back at once, so that loading a
//! model needs little more memory than the loaded model. Values that are not finite are refused by name.

pub mod bitsandbytes;
pub(crate) mod dequant;
pub(crate) mod gguf;
mod load;
pub(crate) mod mapped;
mod names;
pub(crate) mod safetensors;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use self::bitsandbytes::Rounded;
pub use self::dequant::Stored;
use self::gguf::Gguf;
pub use self::gguf::GgufError;
use self::mapped::Mapped;
use self::names::Adjust;
pub use self::names::{LinearShape, expected_tensors, linears};
pub use self::safetensors::SafetensorsError;
use self::safetensors::Shard;
use crate::config::{ConfigError, ModelConfig};
use crate::files::{FilesError, INDEX, ModelFiles};
use crate::layers::{Quantization, Weight};

/// Where one tensor lies and how it becomes values.
#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    range: Range<usize>,
    shape: Vec<i64>,
    stored: Option<Stored>,
    /// The element type as the file spells it, for messages.
    dtype: String,
    adjust: Adjust,
}

/// All tensors of a model, not yet loaded.
#[derive(Debug, Default)]
pub struct Weights {
    files: Vec<Mapped>,
    entries: BTreeMap<String, Entry>,
    /// Matrices that are stored rounded, by the name of their entry.
    rounded: BTreeMap<String, Rounded>,
}

/// Why weights cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The files are not there or not whole.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The configuration, by which names are mapped, cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A safetensors file cannot be read.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// Tensors that the architecture needs are not there.
    #[error("cannot load the weights of {}: {} missing: {}", path.display(), tensors(*count), shown.join(", "))]
    Missing { path: PathBuf, count: usize, shown: Vec<String> },
    /// Tensors have other shapes than the configuration says.
    #[error("cannot load the weights of {}: wrong shapes: {}", path.display(), shown.join(", "))]
    Shape { path: PathBuf, shown: Vec<String> },
    /// An element type that weights cannot have here.
    #[error("cannot load `{tensor}` of {}: its element type {dtype} is not supported", path.display())]
    Type { path: PathBuf, tensor: String, dtype: String },
    /// A rounded matrix is not whole.
    #[error("cannot load `{tensor}` of {}: {reason}", path.display())]
    Rounded { path: PathBuf, tensor: String, reason: String },
    /// A value is NaN or infinite.
    #[error(
        "cannot load `{tensor}` of {}: it holds {value} at {position:?}", path.display()
    )]
    NotFinite { path: PathBuf, tensor: String, value: f64, position: Vec<i64> },
    /// LibTorch refused, as a rule for want of memory.
    #[error("cannot load `{tensor}`")]
    Torch { tensor: String, source: tch::TchError },
}

/// How many names a message lists.
const SHOWN: usize = 5;

fn tensors(count: usize) -> String {
    if count == 1 { "1 tensor is".to_owned() } else { format!("{count} tensors are") }
}

impl WeightsError {
    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Gguf(error) => error.hint(),
            Self::Safetensors(_) => {
                Some("download the file again, and compare its size and SHA-256".to_owned())
            }
            Self::Missing { .. } | Self::Shape { .. } => {
                Some("check that config.json and the weights belong together".to_owned())
            }
            Self::Type { .. } => {
                Some("convert the weights to BF16, F16 or F32, or to NF4 or 8 bits".to_owned())
            }
            Self::Rounded { .. } => Some(
                "save the checkpoint again with bitsandbytes, or take one that is not rounded"
                    .to_owned(),
            ),
            Self::NotFinite { .. } => Some(
                "the checkpoint is damaged: choose an earlier one, or download it again".to_owned(),
            ),
            Self::Torch { .. } => Some("free memory, or use bf16 precision".to_owned()),
        }
    }
}

impl Weights {
    /// Maps the files of a model and finds its tensors.
    pub fn open(files: &ModelFiles) -> Result<Self, WeightsError> {
        match files {
            ModelFiles::Gguf(path) => {
                let config = ModelConfig::open(files)?;
                open_gguf(path, &config)
            }
            ModelFiles::Folder(folder) => open_folder(files, folder),
        }
    }

    /// Maps one safetensors file, which need not be a model.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let mut weights = Self::default();
        weights.add_shard(Shard::open(path)?, |_| true);
        Ok(weights)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.entries.get(name).map(|entry| entry.shape.clone())
    }

    /// How a tensor is stored in its file.
    pub fn stored(&self, name: &str) -> Option<Stored> {
        self.entries.get(name).and_then(|entry| entry.stored)
    }

    /// Bytes of all tensors as they lie in the files.
    pub fn stored_bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.range.len() as u64).sum()
    }

    /// Checks that everything the configuration needs is there and of the right shape.
    pub fn check(&self, config: &ModelConfig) -> Result<(), WeightsError> {
        let expected = expected_tensors(config);
        let missing: Vec<&String> = expected
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !self.entries.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            return Err(WeightsError::Missing {
                path: self.path(),
                count: missing.len(),
                shown: shortened(missing.iter().map(|name| (*name).clone()).collect()),
            });
        }
        let wrong: Vec<String> = expected
            .iter()
            .filter_map(|(name, shape)| {
                let found = &self.entries.get(name)?.shape;
                (found != shape)
                    .then(|| format!("`{name}` is {found:?} and config.json says {shape:?}"))
            })
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Shape { path: self.path(), shown: shortened(wrong) })
    }

    /// Loads one tensor in the number format `kind`.
    pub fn tensor(&self, name: &str, kind: Kind, device: Device) -> Result<Tensor, WeightsError> {
        let entry = self.entries.get(name).ok_or_else(|| WeightsError::Missing {
            path: self.path(),
            count: 1,
            shown: vec![name.to_owned()],
        })?;
        match self.rounded(name, device)? {
            Some(weight) => Ok(weight.value(kind)),
            None => load::load(&self.files[entry.file], name, entry, kind, device),
        }
    }

    /// Loads a matrix as it is stored, where it is stored rounded.
    pub fn rounded(&self, name: &str, device: Device) -> Result<Option<Weight>, WeightsError> {
        let Some(rounded) = self.rounded.get(name) else { return Ok(None) };
        rounded.load(&self.files, name, device).map(Some)
    }

    /// How the files hold the matrices of linear layers, where they hold them rounded.
    pub fn quantization(&self) -> Option<Quantization> {
        self.rounded.values().next().map(Rounded::format)
    }

    fn path(&self) -> PathBuf {
        let path = self.files.first().map(|file| file.path().to_owned()).unwrap_or_default();
        match path.parent() {
            Some(folder) if self.files.len() > 1 => folder.to_owned(),
            _ => path,
        }
    }

    fn add_shard(&mut self, shard: Shard, belongs: impl Fn(&str) -> bool) {
        let file = self.files.len();
        for tensor in shard.tensors.into_iter().filter(|tensor| belongs(&tensor.name)) {
            let entry = Entry {
                file,
                range: tensor.range,
                shape: tensor.shape,
                stored: tensor.stored,
                dtype: tensor.dtype,
                adjust: Adjust::None,
            };
            self.entries.insert(tensor.name, entry);
        }
        self.files.push(shard.file);
    }
}

fn shortened(mut names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names
}

fn open_gguf(path: &Path, config: &ModelConfig) -> Result<Weights, WeightsError> {
    let gguf = Gguf::open(path)?;
    let arch = gguf.text("general.architecture").unwrap_or_default().to_owned();
    let (file, tensors) = gguf.into_parts();
    let mut entries = BTreeMap::new();
    for tensor in tensors {
        let Some(name) = names::from_gguf(&tensor.name, config.model_type) else { continue };
        let entry = Entry {
            file: 0,
            range: tensor.range,
            shape: tensor.shape,
            stored: Some(tensor.stored),
            dtype: tensor.stored.to_string(),
            adjust: names::adjust(&tensor.name, &arch, config),
        };
        entries.insert(name, entry);
    }
    Ok(Weights { files: vec![file], entries, rounded: BTreeMap::new() })
}

fn open_folder(files: &ModelFiles, folder: &Path) -> Result<Weights, WeightsError> {
    let mut weights = Weights::default();
    let paths = files.weight_files()?;
    // With an index, a tensor is taken from the file the index names.
    let index = if paths.len() > 1 || paths.iter().any(|path| !path.ends_with(crate::files::SINGLE))
    {
        weight_map(files)?
    } else {
        HashMap::new()
    };
    for path in paths {
        let shard = Shard::open(&path)?;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        weights.add_shard(shard, |name| {
            index.is_empty() || index.get(name).map(String::as_str) == file.as_deref()
        });
    }
    let lost: Vec<String> = index
        .iter()
        .filter(|(name, _)| !weights.entries.contains_key(*name))
        .map(|(name, file)| format!("`{name}` (in {file} by the index)"))
        .collect();
    if !lost.is_empty() {
        let count = lost.len();
        return Err(WeightsError::Missing {
            path: folder.to_owned(),
            count,
            shown: shortened(lost),
        });
    }
    weights.entries = std::mem::take(&mut weights.entries)
        .into_iter()
        .map(|(name, entry)| (names::unwrapped(&name), entry))
        .collect();
    weights.rounded = bitsandbytes::gather(&weights.files, &mut weights.entries)?;
    Ok(weights)
}

fn weight_map(files: &ModelFiles) -> Result<HashMap<String, String>, WeightsError> {
    let index = files.json(INDEX)?;
    let map = index.as_ref().and_then(|index| index.get("weight_map")).and_then(Value::as_object);
    let pairs = map.into_iter().flatten();
    Ok(pairs.filter_map(|(name, file)| Some((name.clone(), file.as_str()?.to_owned()))).collect())
}
