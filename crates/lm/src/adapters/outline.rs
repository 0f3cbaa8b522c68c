//! What an adapter's own files tell of it, for servers other than ours, which bring the base model.

use std::path::Path;

use tch::Tensor;

use super::{AdapterError, LARGEST_CONFIG, finite, servable, sized};
use crate::peft::{self, ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX};

/// An adapter whose files are sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    pub rank: i64,
    /// Bytes of its file of weights.
    pub bytes: u64,
}

impl Outline {
    /// Reads the adapter in `folder` and checks what can be checked without the base model: kind and rank,
    /// that every pair of matrices `A [r, inputs]`, `B [outputs, r]` is whole, and that all numbers are finite.
    /// Whether the shapes are those of the base model is for the server to say that has it.
    pub fn open(folder: &Path, max_rank: i64, most_bytes: u64) -> Result<Self, AdapterError> {
        sized(&folder.join(ADAPTER_CONFIG), LARGEST_CONFIG)?;
        let config = peft::config(folder)?;
        servable(&config, max_rank)?;
        let path = folder.join(ADAPTER_WEIGHTS);
        let bytes = sized(&path, most_bytes)?;
        let tensors = peft::read_tensors(&path)?;
        if tensors.is_empty() {
            return Err(AdapterError::NoLayer { targets: config.target_modules });
        }
        for (name, tensor) in &tensors {
            matrix(name, tensor, config.rank)?;
            finite(name, tensor)?;
        }
        for name in tensors.keys() {
            let other = match name.strip_suffix(A) {
                Some(layer) => format!("{layer}{B}"),
                None => format!("{}{A}", name.trim_end_matches(B)),
            };
            if !tensors.contains_key(&other) {
                return Err(AdapterError::NoTensor { name: other });
            }
        }
        Ok(Self { rank: config.rank, bytes })
    }
}

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Fails where a tensor is no matrix of a pair of this rank.
fn matrix(name: &str, tensor: &Tensor, rank: i64) -> Result<(), AdapterError> {
    let found = tensor.size();
    let other = |index: usize| found.get(index).copied().unwrap_or(1);
    let expected = match (name.starts_with(PREFIX), name.ends_with(A), name.ends_with(B)) {
        (true, true, _) => [rank, other(1)],
        (true, _, true) => [other(0), rank],
        _ => return Err(AdapterError::Stray { name: name.to_owned() }),
    };
    if found == expected {
        return Ok(());
    }
    Err(AdapterError::Shape { name: name.to_owned(), found, expected: expected.to_vec() })
}
