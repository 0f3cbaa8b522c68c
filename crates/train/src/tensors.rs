//! Tensors by name to and from a safetensors file: the optimizer's state. Values are fp32 or int64.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::files::FileError;

/// Why tensors could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no safetensors file, or holds other types than we write.
    #[error("cannot read tensors from `{}`: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    #[error("`{}` lacks the tensor `{name}`", path.display())]
    Missing { path: PathBuf, name: String },
}

/// Writes a safetensors file whose bytes depend on names and values only.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), TensorsError> {
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), Bytes::of(tensor)));
    safetensors::serialize_to_file(views, None, path).map_err(|error| match error {
        SafeTensorError::IoError(source) => FileError::of("write", path)(source).into(),
        other => TensorsError::Malformed { path: path.to_owned(), why: other.to_string() },
    })
}

/// Reads a whole file onto the CPU.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, TensorsError> {
    let bytes = std::fs::read(path).map_err(FileError::of("read", path))?;
    let malformed = |why: String| TensorsError::Malformed { path: path.to_owned(), why };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::I64 => Kind::Int64,
            other => return Err(malformed(format!("tensor `{name}` is of type {other}"))),
        };
        let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
            .map_err(|error| malformed(error.to_string()))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// A tensor as the safetensors crate wants to see it; the bytes are copied when they are written.
struct Bytes {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl Bytes {
    fn of(tensor: &Tensor) -> Self {
        let shape = tensor.size().iter().map(|size| *size as usize).collect();
        Self { tensor: tensor.to_device(Device::Cpu).contiguous(), shape }
    }
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        if self.tensor.kind() == Kind::Int64 { Dtype::I64 } else { Dtype::F32 }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}
