//! The safetensors container: the header of one file, and where each tensor lies.
//!
//! Format: <https://github.com/huggingface/safetensors#format>.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::dequant::Stored;
use super::mapped::Mapped;

/// The length field before the JSON header.
const LENGTH: usize = 8;

/// Why a safetensors file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The file ends before what its header describes.
    #[error(
        "cannot read {}: the file is truncated: its header says {needed} bytes, and it has {actual}", path.display()
    )]
    Truncated { path: PathBuf, needed: u64, actual: u64 },
    /// The header is not a safetensors header.
    #[error("cannot read {}: its header is damaged: {reason}", path.display())]
    Header { path: PathBuf, reason: String },
}

/// Where one tensor lies and how it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShardTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    /// `None` for element types that no weight of a language model has.
    pub(crate) stored: Option<Stored>,
    /// The element type in the file's own spelling.
    pub(crate) dtype: String,
    pub(crate) range: Range<usize>,
}

/// One open safetensors file.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) file: Mapped,
    pub(crate) tensors: Vec<ShardTensor>,
}

impl Shard {
    /// Reads the header and checks that the file is as long as it says.
    pub(crate) fn open(path: &Path) -> Result<Self, SafetensorsError> {
        let io = |source| SafetensorsError::Io { path: path.to_owned(), source };
        let actual = std::fs::metadata(path).map_err(io)?.len();
        if actual < LENGTH as u64 {
            return Err(truncated(path, LENGTH as u64, actual));
        }
        let file = Mapped::open(path).map_err(io)?;
        let tensors = read_header(path, file.bytes())?;
        Ok(Self { file, tensors })
    }
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<ShardTensor>, SafetensorsError> {
    let mut length = [0; LENGTH];
    length.copy_from_slice(&bytes[..LENGTH]);
    let length = u64::from_le_bytes(length);
    let start = length.saturating_add(LENGTH as u64);
    if bytes.get(LENGTH) != Some(&b'{') {
        return Err(damaged(path, "it does not start with a JSON object"));
    }
    let Some(header) = bytes.get(LENGTH..start as usize) else {
        return Err(truncated(path, start, bytes.len() as u64));
    };
    let header: Value = serde_json::from_slice(header)
        .map_err(|error| damaged(path, &format!("not JSON: {error}")))?;
    let table = header.as_object().ok_or_else(|| damaged(path, "it is not a JSON object"))?;
    let mut tensors = Vec::with_capacity(table.len());
    for (name, entry) in table.iter().filter(|(name, _)| *name != "__metadata__") {
        let tensor = locate(name, entry, start)
            .ok_or_else(|| damaged(path, &format!("the entry of `{name}` cannot be understood")))?;
        if tensor
            .stored
            .is_some_and(|stored| stored.bytes_of(&tensor.shape) != Some(tensor.range.len() as u64))
        {
            let reason = format!("`{name}` of shape {:?} does not fill its place", tensor.shape);
            return Err(damaged(path, &reason));
        }
        tensors.push(tensor);
    }
    let needed = tensors.iter().map(|tensor| tensor.range.end as u64).max().unwrap_or(start);
    if needed > bytes.len() as u64 {
        return Err(truncated(path, needed, bytes.len() as u64));
    }
    Ok(tensors)
}

fn locate(name: &str, entry: &Value, start: u64) -> Option<ShardTensor> {
    let dtype = entry.get("dtype")?.as_str()?.to_owned();
    let shape: Option<Vec<i64>> =
        entry.get("shape")?.as_array()?.iter().map(Value::as_i64).collect();
    let offsets = entry.get("data_offsets")?.as_array()?;
    let [from, to] = offsets.as_slice() else { return None };
    let (from, to) = (start.checked_add(from.as_u64()?)?, start.checked_add(to.as_u64()?)?);
    let shape = shape.filter(|shape| shape.iter().all(|&size| size >= 0))?;
    let stored = Stored::from_safetensors(&dtype);
    (from <= to).then(|| ShardTensor {
        name: name.to_owned(),
        shape,
        stored,
        dtype,
        range: from as usize..to as usize,
    })
}

fn truncated(path: &Path, needed: u64, actual: u64) -> SafetensorsError {
    SafetensorsError::Truncated { path: path.to_owned(), needed, actual }
}

fn damaged(path: &Path, reason: &str) -> SafetensorsError {
    SafetensorsError::Header { path: path.to_owned(), reason: reason.to_owned() }
}
