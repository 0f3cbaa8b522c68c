//! What transformers, PEFT and PyTorch computed for tiny models, and how far we are from it.
//!
//! `README.md` beside this crate tells what the files hold and how they are made.

pub mod run;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tch::{Kind, Tensor};

/// Every model there is a reference for; most are named after their `model_type`.
pub const CASES: [&str; 9] = [
    "llama",
    "llama3",
    "llama_bias",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_yarn",
    "gemma3_text",
    "phi3",
];

/// Models that bitsandbytes has rounded and saved, and the one that they were.
pub const QUANTIZED: [&str; 2] = ["nf4", "int8"];
pub const UNQUANTIZED: &str = "quantized";

/// Largest relative difference that is put down to the order of fp32 additions.
pub const TOLERANCE: f64 = 1e-4;

/// A tiny model in a folder, and its reference numbers.
#[derive(Debug)]
pub struct Case {
    pub folder: PathBuf,
    /// Of the model without an adapter.
    pub reference: Reference,
    pub sequences: Vec<Sequence>,
}

/// Reference numbers of a model, with or without an adapter.
#[derive(Debug)]
pub struct Reference {
    /// `logits [T, V]`, and gradients as `grad.NAME`.
    pub tensors: HashMap<String, Tensor>,
    pub report: Value,
}

/// One training example.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub ids: Vec<i64>,
    /// Weight of each token as a label; the first is never one.
    pub weights: Vec<f32>,
}

impl Case {
    pub fn open(name: &str) -> Result<Self> {
        let folder = fixtures().join("models").join(name);
        let reference = Reference::open(&folder)?;
        let sequences = (0..)
            .map_while(|index| {
                let ids = reference.tensors.get(&format!("ids.{index}"))?;
                let weights = reference.tensors.get(&format!("weights.{index}"))?;
                Some(Sequence {
                    ids: ids.try_into().expect("ids are int64"),
                    weights: weights.try_into().expect("weights are fp32"),
                })
            })
            .collect();
        Ok(Self { folder, reference, sequences })
    }

    /// The adapter in the folder `name` and the numbers of the model with it.
    pub fn adapter(&self, name: &str) -> Result<(PathBuf, Reference)> {
        let folder = self.folder.join(name);
        let reference = Reference::open(&folder)?;
        Ok((folder, reference))
    }

    /// The two sequences that step `step` of a run takes.
    pub fn batch(&self, step: usize) -> [&Sequence; 2] {
        [0, 1].map(|index| &self.sequences[(2 * step + index) % self.sequences.len()])
    }
}

impl Reference {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("reference.safetensors");
        let tensors = Tensor::read_safetensors(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let path = folder.join("reference.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(Self { tensors: tensors.into_iter().collect(), report: serde_json::from_str(&text)? })
    }

    pub fn logits(&self) -> &Tensor {
        &self.tensors["logits"]
    }

    pub fn loss(&self) -> f64 {
        self.report["loss"].as_f64().expect("every reference has a loss")
    }

    /// Gradients that were kept whole, by the name of the parameter.
    pub fn gradients(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix("grad.")?;
            Some((name.strip_prefix("base_model.model.").unwrap_or(name), tensor))
        })
    }

    /// A list of numbers of the report, such as `losses`.
    pub fn numbers(&self, field: &str) -> Vec<f64> {
        let list = self.report[field].as_array().expect("the report has this list");
        list.iter().map(|number| number.as_f64().expect("it holds numbers")).collect()
    }
}

/// The committed files.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Fails unless `ours` lies within [`TOLERANCE`] of `theirs`, measured against the largest value.
pub fn close(what: &str, ours: &Tensor, theirs: &Tensor) -> Result<()> {
    ensure!(ours.size() == theirs.size(), "{what}: {:?}, not {:?}", ours.size(), theirs.size());
    let (ours, theirs) = (ours.to_kind(Kind::Double), theirs.to_kind(Kind::Double));
    let largest = theirs.abs().max().double_value(&[]).max(f64::MIN_POSITIVE);
    let difference = (ours - theirs).abs().max().double_value(&[]) / largest;
    ensure!(difference < TOLERANCE, "{what}: differs by {difference:.1e} of the largest value");
    Ok(())
}

/// The same for one number.
pub fn close_number(what: &str, ours: f64, theirs: f64) -> Result<()> {
    let difference = (ours - theirs).abs() / theirs.abs().max(f64::MIN_POSITIVE);
    ensure!(difference < TOLERANCE, "{what}: {ours} is not {theirs} (relative {difference:.1e})");
    Ok(())
}
