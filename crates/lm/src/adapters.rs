//! Adapters for serving: many beside one base model, and different ones in one batch.
//!
//! The base model's product is computed once for all rows. What each row's adapter adds is computed for
//! runs of rows with the same adapter: by two small products for long runs, and on a CPU by one call for
//! all short ones. Shapes: `A [r, inputs]`, `B [r, outputs]` with the scaling in it.

mod outline;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::config::ModelConfig;
use crate::kernels;
use crate::lora::{LoraBias, LoraConfig};
use crate::peft::{self, ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX, PeftError};
use crate::products;
use crate::serve_kernels;
use crate::weights::linears;

pub use outline::Outline;

/// From this many rows on, an adapter's part is two products of its own.
const RUN: i64 = 8;
/// Largest configuration file that is read; real ones have one or two kilobytes.
const LARGEST_CONFIG: u64 = 1 << 20;
/// Bytes of a weights file beside the numbers, for each tensor and for the whole.
const HEADER: u64 = 1 << 10;

/// Linear layers of a model by name: outputs and inputs.
pub type LinearShapes = BTreeMap<String, (i64, i64)>;

/// An adapter, ready to be used in a batch.
#[derive(Debug)]
pub struct Adapter {
    layers: HashMap<String, LowRank>,
    config: LoraConfig,
}

#[derive(Debug)]
struct LowRank {
    a: Tensor,
    b: Tensor,
}

/// What an adapter has to be to be served.
#[derive(Clone, Debug)]
pub struct Requirements<'a> {
    pub shapes: &'a LinearShapes,
    pub max_rank: i64,
    pub kind: Kind,
    pub device: Device,
}

/// Why an adapter cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    #[error("{} is missing{found}", path.display())]
    Missing { path: PathBuf, found: String },
    #[error("{} has {size} bytes, and at most {most} are read", path.display())]
    TooLarge { path: PathBuf, size: u64, most: u64 },
    #[error("its rank is {rank}, and at most {most} is served")]
    Rank { rank: i64, most: i64 },
    #[error("it trains {what}, which cannot be served beside other adapters")]
    Kind { what: &'static str },
    #[error("tensor `{name}` has shape {found:?}, and {expected:?} is needed")]
    Shape { name: String, found: Vec<i64>, expected: Vec<i64> },
    #[error("tensor `{name}` is missing")]
    NoTensor { name: String },
    #[error("tensor `{name}` belongs to no layer of this base model that the adapter names")]
    Unknown { name: String },
    #[error("tensor `{name}` is no matrix of a LoRA adapter")]
    Stray { name: String },
    #[error("tensor `{name}` holds values that are not finite")]
    NotFinite { name: String },
    #[error("none of its target modules {targets:?} is a layer of this base model")]
    NoLayer { targets: Vec<String> },
    #[error(transparent)]
    Peft(#[from] PeftError),
}

/// The linear layers of a model by its configuration, with no weights read.
pub fn shapes_of(config: &ModelConfig) -> LinearShapes {
    let head = ("lm_head".to_owned(), (config.vocab_size, config.hidden_size));
    let blocks = linears(config).into_iter();
    let blocks = blocks.map(|layer| (layer.name, (layer.out_features, layer.in_features)));
    blocks.chain([head]).collect()
}

impl Adapter {
    /// Reads the adapter in `folder` and checks that this base model can serve it. Nothing that the files
    /// say is believed: sizes are bounded before they are read.
    pub fn open(folder: &Path, needs: &Requirements<'_>) -> Result<Self, AdapterError> {
        sized(&folder.join(ADAPTER_CONFIG), LARGEST_CONFIG)?;
        let config = peft::config(folder)?;
        servable(&config, needs.max_rank)?;
        let targets: Vec<(&String, (i64, i64))> = needs
            .shapes
            .iter()
            .filter(|(name, _)| config.targets(name, name.as_str() == "lm_head"))
            .map(|(name, shape)| (name, *shape))
            .collect();
        if targets.is_empty() {
            return Err(AdapterError::NoLayer { targets: config.target_modules });
        }
        let path = folder.join(ADAPTER_WEIGHTS);
        let numbers = targets.iter().map(|(_, (outputs, inputs))| outputs + inputs).sum::<i64>();
        let most = numbers as u64 * config.rank as u64 * 4;
        sized(&path, most + HEADER * (2 * targets.len() as u64 + HEADER))?;
        let mut tensors = peft::read_tensors(&path)?;
        let mut layers = HashMap::new();
        for (name, (outputs, inputs)) in targets {
            let a = taken(&mut tensors, name, "A", [config.rank, inputs])?;
            let b = taken(&mut tensors, name, "B", [outputs, config.rank])?;
            let b = (b * config.scaling()).tr();
            let ready = |x: Tensor| x.to_kind(needs.kind).to_device(needs.device).contiguous();
            layers.insert(name.clone(), LowRank { a: ready(a), b: ready(b) });
        }
        match tensors.into_keys().next() {
            Some(name) => Err(AdapterError::Unknown { name }),
            None => Ok(Self { layers, config }),
        }
    }

    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Bytes that its matrices take.
    pub fn bytes(&self) -> u64 {
        let bytes = |x: &Tensor| (x.numel() * x.kind().elt_size_in_bytes()) as u64;
        self.layers.values().map(|layer| bytes(&layer.a) + bytes(&layer.b)).sum()
    }
}

fn servable(config: &LoraConfig, max_rank: i64) -> Result<(), AdapterError> {
    if config.rank > max_rank {
        return Err(AdapterError::Rank { rank: config.rank, most: max_rank });
    }
    if !config.modules_to_save.is_empty() {
        return Err(AdapterError::Kind { what: "whole modules (modules_to_save)" });
    }
    match config.bias {
        LoraBias::None => Ok(()),
        LoraBias::All | LoraBias::LoraOnly => Err(AdapterError::Kind { what: "biases" }),
    }
}

/// Bytes of a file; fails where it is not there or larger than `most`.
fn sized(path: &Path, most: u64) -> Result<u64, AdapterError> {
    let Ok(metadata) = std::fs::metadata(path) else {
        let pickle = path.with_file_name("adapter_model.bin").exists();
        let found = if pickle { "; a pickle file is there, and none is ever read" } else { "" };
        return Err(AdapterError::Missing { path: path.to_owned(), found: found.to_owned() });
    };
    let size = metadata.len();
    if size > most {
        return Err(AdapterError::TooLarge { path: path.to_owned(), size, most });
    }
    Ok(size)
}

fn taken(
    tensors: &mut BTreeMap<String, Tensor>,
    layer: &str,
    which: &str,
    expected: [i64; 2],
) -> Result<Tensor, AdapterError> {
    let name = format!("{PREFIX}{layer}.lora_{which}.weight");
    let Some(tensor) = tensors.remove(&name) else { return Err(AdapterError::NoTensor { name }) };
    let found = tensor.size();
    if found != expected {
        return Err(AdapterError::Shape { name, found, expected: expected.to_vec() });
    }
    finite(&name, &tensor)?;
    Ok(tensor)
}

fn finite(name: &str, tensor: &Tensor) -> Result<(), AdapterError> {
    if tensor.isfinite().all().int64_value(&[]) == 0 {
        return Err(AdapterError::NotFinite { name: name.to_owned() });
    }
    Ok(())
}

/// Which adapter each row of a batch goes through; rows that no run names go through none.
#[derive(Debug, Default)]
pub struct Routes<'a> {
    runs: Vec<Run<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Run<'a> {
    adapter: &'a Adapter,
    start: i64,
    rows: i64,
}

impl<'a> Routes<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows `start..start + rows` go through `adapter`. Runs come in the order of their rows.
    pub fn push(&mut self, adapter: &'a Adapter, start: i64, rows: i64) {
        if let Some(last) = self.runs.last_mut()
            && std::ptr::eq(last.adapter, adapter)
            && last.start + last.rows == start
        {
            last.rows += rows;
            return;
        }
        self.runs.push(Run { adapter, start, rows });
    }

    /// The same for a choice of rows, given in ascending order.
    #[must_use]
    pub fn select(&self, rows: &[i64]) -> Self {
        let mut selected = Self::new();
        for (index, row) in rows.iter().enumerate() {
            let run = self.runs.iter().find(|run| (run.start..run.start + run.rows).contains(row));
            if let Some(run) = run {
                selected.push(run.adapter, index as i64, 1);
            }
        }
        selected
    }

    /// Adds to `y`, a layer's result for `x`, what the adapters add to it.
    pub(crate) fn add(&self, layer: &str, x: &Tensor, y: Tensor) -> Tensor {
        let fused = kernels::supports(x) && kernels::supports(&y);
        let mut short = Vec::new();
        for run in &self.runs {
            let Some(LowRank { a, b }) = run.adapter.layers.get(layer) else { continue };
            if fused && run.rows < RUN {
                short.extend((run.start..run.start + run.rows).map(|row| (row, a, b)));
                continue;
            }
            let low = products::matmul(&x.narrow(0, run.start, run.rows), &a.tr());
            let _ = products::add_product(y.narrow(0, run.start, run.rows), &low, b);
        }
        if !short.is_empty() {
            serve_kernels::low_rank(x, &y, &short);
        }
        y
    }
}
