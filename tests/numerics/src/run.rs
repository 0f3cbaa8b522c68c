//! Runs our engine on what a reference was made from.

use anyhow::{Context, Result, ensure};
use lm::dropout::Dropout;
use lm::files::ModelFiles;
use lm::head::Targets;
use lm::model::{LoadOptions, Model};
use lm::packed::Packed;
use lm::tape::{Mode, Tape, TapeOptions};
use tch::{Device, Kind, Tensor};

use crate::{Case, Sequence};

/// A way through the engine. All have to give the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Hand-written backward steps.
    Explicit,
    /// The same, with activations computed again.
    Checkpointed,
    /// LibTorch's autograd.
    Autograd,
}

impl Path {
    pub const ALL: [Self; 3] = [Self::Explicit, Self::Checkpointed, Self::Autograd];

    /// `dropout` decides the masks of this pass; without one nothing is dropped.
    pub fn tape<'m>(self, dropout: Option<Dropout>) -> Tape<'m> {
        let mode = if self == Self::Autograd { Mode::Autograd } else { Mode::Explicit };
        Tape::new(TapeOptions { mode, checkpointing: self == Self::Checkpointed, dropout })
    }
}

/// The case's model, fp32, frozen.
pub fn load(case: &Case) -> Result<Model> {
    load_as(case, Kind::Float)
}

/// The same in another number format.
pub fn load_as(case: &Case, kind: Kind) -> Result<Model> {
    let files = ModelFiles::open(&case.folder).context("cannot open the fixture")?;
    Ok(Model::load(&files, LoadOptions { kind, device: Device::Cpu, quantization: None })?)
}

/// Sequences one after another, as the engine takes them.
pub fn pack(sequences: &[&Sequence]) -> Packed {
    let ids: Vec<i64> = sequences.iter().flat_map(|s| s.ids.iter().copied()).collect();
    let lengths: Vec<i64> = sequences.iter().map(|s| s.ids.len() as i64).collect();
    Packed::new(&ids, &lengths, Device::Cpu)
}

/// What a packed batch should predict; its loss is the mean over `total` label weight.
pub fn targets(sequences: &[&Sequence], total: f64) -> Targets {
    let (mut rows, mut ids, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let mut offset = 0;
    for sequence in sequences {
        for index in 1..sequence.ids.len() {
            if sequence.weights[index] > 0.0 {
                rows.push(offset + index as i64 - 1);
                ids.push(sequence.ids[index]);
                weights.push(sequence.weights[index]);
            }
        }
        offset += sequence.ids.len() as i64;
    }
    Targets {
        rows: Tensor::from_slice(&rows),
        ids: Tensor::from_slice(&ids),
        weights: Some(Tensor::from_slice(&weights)),
        scale: 1.0 / total,
    }
}

/// All label weight of some sequences.
pub fn label_weight(sequences: &[&Sequence]) -> f64 {
    let weights = sequences.iter().flat_map(|sequence| &sequence.weights[1..]);
    weights.map(|weight| f64::from(*weight)).sum()
}

/// Logits of packed sequences, `[T, V]`.
pub fn logits(model: &Model, sequences: &[&Sequence]) -> Tensor {
    let packed = pack(sequences);
    let hidden = model.hidden(&Tape::infer(), &packed, None).into_tensor();
    tch::no_grad(|| model.logits(&hidden))
}

/// Loss of one batch without dropout; gradients are added to the model's parameters.
pub fn loss_and_gradients(model: &Model, path: Path, sequences: &[&Sequence]) -> f64 {
    loss_and_gradients_dropped(model, path, sequences, None)
}

/// The same with the dropout of adapters that have one.
pub fn loss_and_gradients_dropped(
    model: &Model,
    path: Path,
    sequences: &[&Sequence],
    dropout_seed: Option<u64>,
) -> f64 {
    let packed = pack(sequences);
    let targets = targets(sequences, label_weight(sequences));
    for param in model.trainable() {
        param.zero_grad();
        param.track(path == Path::Autograd);
    }
    let tape = path.tape(dropout_seed.map(|seed| Dropout::new(seed, 0, packed.lengths())));
    let hidden = model.hidden(&tape, &packed, None);
    let loss = model.loss(&tape, &hidden, &targets);
    loss.backward(&tape);
    loss.value()
}

/// The gradient of the parameter of this name.
pub fn gradient(model: &Model, name: &str) -> Result<Tensor> {
    let named: Vec<_> = model.trainable().iter().filter(|param| param.name() == name).collect();
    ensure!(named.len() == 1, "{} trained parameters are called {name}", named.len());
    named[0].grad().with_context(|| format!("{name} has no gradient"))
}
