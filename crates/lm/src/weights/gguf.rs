//! The GGUF container: metadata, and where each tensor lies. It knows no model and decodes no block.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::dequant::Stored;
use super::mapped::Mapped;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Wider than any real tensor; a larger count means that the file is damaged.
const MAX_DIMENSIONS: u32 = 8;

/// Why a GGUF file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The first four bytes are not `GGUF`.
    #[error("cannot read {} as GGUF: it starts with {found}, not with the bytes \"GGUF\"", path.display())]
    Magic { path: PathBuf, found: String },
    /// A version this reader does not know.
    #[error("cannot read {}: it is GGUF version {version}, and versions 2 and 3 are supported", path.display())]
    Version { path: PathBuf, version: u32 },
    /// The file ends too early.
    #[error(
        "cannot read {}: the file is truncated: its header says {needed} bytes, and it has {actual}", path.display()
    )]
    Truncated { path: PathBuf, needed: u64, actual: u64 },
    /// The header contradicts itself.
    #[error("cannot read {}: the file is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// A tensor is stored in a way that cannot be decoded.
    #[error(
        "cannot read tensor `{tensor}` of {}: its type is {stored}, and the supported types are {}",
        path.display(), Stored::GGUF_NAMES
    )]
    Type { path: PathBuf, tensor: String, stored: String },
    /// The file is one part of several.
    #[error("cannot read {}: it is one of {parts} parts of a model", path.display())]
    Split { path: PathBuf, parts: i64 },
    /// Metadata that is needed is not there.
    #[error("cannot read {}: its metadata has no `{key}`", path.display())]
    MissingKey { path: PathBuf, key: String },
}

impl GgufError {
    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { .. } => return None,
            Self::Magic { .. } => {
                "name a .gguf file, or a folder with config.json and .safetensors files"
            }
            Self::Version { .. } => "convert the model again with a current converter",
            Self::Truncated { .. } | Self::Damaged { .. } | Self::MissingKey { .. } => {
                "download the file again, and compare its size and SHA-256"
            }
            Self::Split { .. } => {
                "merge the parts into one file with llama.cpp's gguf-split --merge"
            }
            Self::Type { .. } => {
                "choose another quantization of this model, for example Q4_K_M or Q8_0"
            }
        };
        Some(text.to_owned())
    }
}

/// One metadata value. Arrays stay in the file until they are asked for.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array { element: u32, count: usize, start: usize },
}

/// Where one tensor lies and how it is stored. `shape` is in torch order (slowest dimension first).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GgufTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) stored: Stored,
    pub(crate) range: Range<usize>,
}

/// An open GGUF file.
#[derive(Debug)]
pub(crate) struct Gguf {
    file: Mapped,
    metadata: HashMap<String, Value>,
    tensors: Vec<GgufTensor>,
}

impl Gguf {
    /// Reads the header and checks that the file is as long as it says.
    pub(crate) fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length < 24 {
            return Err(too_short(path, length));
        }
        let file = Mapped::open(path).map_err(io)?;
        let (metadata, tensors) = {
            let mut reader = Reader { path, bytes: file.bytes(), at: 0 };
            reader.header()?
        };
        let gguf = Self { file, metadata, tensors };
        match gguf.integer("split.count") {
            Some(parts) if parts > 1 => Err(GgufError::Split { path: path.to_owned(), parts }),
            _ => Ok(gguf),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }

    pub(crate) fn into_parts(self) -> (Mapped, Vec<GgufTensor>) {
        (self.file, self.tensors)
    }

    /// The tensor of this name in GGUF's own spelling.
    pub(crate) fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        match *self.metadata.get(key)? {
            Value::Unsigned(value) => i64::try_from(value).ok(),
            Value::Signed(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn float(&self, key: &str) -> Option<f64> {
        match *self.metadata.get(key)? {
            Value::Float(value) => Some(value),
            Value::Unsigned(value) => Some(value as f64),
            Value::Signed(value) => Some(value as f64),
            _ => None,
        }
    }

    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        match *self.metadata.get(key)? {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn count(&self, key: &str) -> Option<usize> {
        match *self.metadata.get(key)? {
            Value::Array { count, .. } => Some(count),
            _ => None,
        }
    }

    /// An array of strings.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, GgufError> {
        let Some((element, count, mut reader)) = self.array(key) else { return Ok(None) };
        if element != 8 {
            return Ok(None);
        }
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(reader.text()?);
        }
        Ok(Some(texts))
    }

    /// An array of numbers of any type.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        let Some((element, count, mut reader)) = self.array(key) else { return Ok(None) };
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.push(match reader.value(element)? {
                Value::Unsigned(value) => value as f64,
                Value::Signed(value) => value as f64,
                Value::Float(value) => value,
                Value::Bool(value) => f64::from(u8::from(value)),
                Value::Text(_) | Value::Array { .. } => return Ok(None),
            });
        }
        Ok(Some(numbers))
    }

    fn array(&self, key: &str) -> Option<(u32, usize, Reader<'_>)> {
        match *self.metadata.get(key)? {
            Value::Array { element, count, start } => {
                let reader = Reader { path: self.path(), bytes: self.bytes(), at: start };
                Some((element, count, reader))
            }
            _ => None,
        }
    }

    pub(crate) fn missing(&self, key: &str) -> GgufError {
        GgufError::MissingKey { path: self.path().to_owned(), key: key.to_owned() }
    }
}

fn too_short(path: &Path, length: u64) -> GgufError {
    if length < 4 {
        let found = format!("only {length} bytes");
        return GgufError::Magic { path: path.to_owned(), found };
    }
    GgufError::Truncated { path: path.to_owned(), needed: 24, actual: length }
}

/// A cursor over the mapped file; every read is checked against its end.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

type Header = (HashMap<String, Value>, Vec<GgufTensor>);

impl Reader<'_> {
    fn header(&mut self) -> Result<Header, GgufError> {
        let magic: [u8; 4] = self.array()?;
        if &magic != MAGIC {
            let found = format!("\"{}\"", magic.escape_ascii());
            return Err(GgufError::Magic { path: self.path.to_owned(), found });
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { path: self.path.to_owned(), version });
        }
        let tensor_count = self.u64()?;
        let metadata_count = self.u64()?;
        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            metadata.insert(key, value);
        }
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Unsigned(value)) if *value > 0 => *value,
            _ => DEFAULT_ALIGNMENT,
        };
        let tensors = self.tensors(tensor_count, alignment)?;
        Ok((metadata, tensors))
    }

    /// The tensor table. Offsets in it count from the next aligned byte after the table.
    fn tensors(&mut self, count: u64, alignment: u64) -> Result<Vec<GgufTensor>, GgufError> {
        let mut table = Vec::new();
        for _ in 0..count {
            let name = self.text()?;
            let dimensions = self.u32()?;
            if dimensions > MAX_DIMENSIONS {
                return Err(self.damaged(format!("`{name}` has {dimensions} dimensions")));
            }
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                let size = i64::try_from(self.u64()?)
                    .map_err(|_| self.damaged(format!("`{name}` is impossibly large")))?;
                shape.push(size);
            }
            shape.reverse();
            let kind = self.u32()?;
            let offset = self.u64()?;
            let stored = Stored::from_ggml(kind).ok_or_else(|| GgufError::Type {
                path: self.path.to_owned(),
                tensor: name.clone(),
                stored: super::dequant::ggml_name(kind),
            })?;
            table.push((name, shape, stored, offset));
        }
        let data = (self.at as u64).div_ceil(alignment) * alignment;
        table.into_iter().map(|row| self.locate(row, data)).collect()
    }

    fn locate(
        &self,
        (name, shape, stored, offset): (String, Vec<i64>, Stored, u64),
        data: u64,
    ) -> Result<GgufTensor, GgufError> {
        let length = stored.bytes_of(&shape).ok_or_else(|| {
            self.damaged(format!("`{name}` of shape {shape:?} cannot be of type {stored}"))
        })?;
        let overflow = || self.damaged(format!("`{name}` lies outside the file"));
        let start = data.checked_add(offset).ok_or_else(overflow)?;
        let end = start.checked_add(length).ok_or_else(overflow)?;
        if end > self.bytes.len() as u64 {
            let (path, actual) = (self.path.to_owned(), self.bytes.len() as u64);
            // The data of the last tensor ends the file; tell the size by this one, which is past the end.
            return Err(GgufError::Truncated { path, needed: end, actual });
        }
        Ok(GgufTensor { name, shape, stored, range: start as usize..end as usize })
    }

    /// One value of GGUF's type number `kind`. Arrays are walked over and remembered by position.
    fn value(&mut self, kind: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => self.skip_array()?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.damaged(format!("metadata of unknown type {kind}"))),
        })
    }

    fn skip_array(&mut self) -> Result<Value, GgufError> {
        let element = self.u32()?;
        let count = self.u64()? as usize;
        let start = self.at;
        let width = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..count {
                    let length = self.u64()? as usize;
                    self.take(length)?;
                }
                return Ok(Value::Array { element, count, start });
            }
            _ => return Err(self.damaged(format!("metadata holds arrays of type {element}"))),
        };
        self.take(count.saturating_mul(width))?;
        Ok(Value::Array { element, count, start })
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()? as usize;
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.damaged("a text in it is not UTF-8".to_owned()))
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn take(&mut self, length: usize) -> Result<&[u8], GgufError> {
        let end = self.at.saturating_add(length);
        if end > self.bytes.len() {
            return Err(GgufError::Truncated {
                path: self.path.to_owned(),
                needed: end as u64,
                actual: self.bytes.len() as u64,
            });
        }
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn damaged(&self, reason: String) -> GgufError {
        GgufError::Damaged { path: self.path.to_owned(), reason }
    }
}
