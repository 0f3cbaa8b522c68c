//! The four verbs that everything else is written in: `forward_backward`, `optim_step`, `sample` and
//! `save`. A session holds the model, its optimizer and the count of steps; it knows no schedule,
//! no files but those it saves, and no loop.

mod load;
mod store;

use std::borrow::Borrow;
use std::ops::ControlFlow;

use api::run_spec::{Adapter, Method, Training};
use lm::dropout::Dropout;
use lm::generate::{Flow, GenerateOptions, generate};
use lm::model::Model;
use lm::packed::Packed;
use lm::param::Param;
use lm::tape::{Mode, Tape, TapeOptions};
use tch::Kind;

use crate::data::{MicroBatch, Packing};
use crate::error::RunError;
use crate::files::FileError;
use crate::method;
use crate::optim::{self, AdamW, Settings};

pub use load::{device, lora_config};
pub use store::{ADAPTER, WEIGHTS};

/// Rows of a bf16 product are filled up to a multiple of this.
const ROUND_ROWS: usize = 64;

/// A model that is being trained.
#[derive(Debug)]
pub struct Session {
    model: Model,
    optimizer: AdamW,
    settings: Settings,
    adapter: Adapter,
    method: Method,
    /// How the user names the base model.
    base_model: String,
    checkpointing: bool,
    seed: u64,
    /// Optimizer steps taken: with the seed, all that dropout depends on.
    step: u64,
}

/// Loss and accuracy over some examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Mean cross-entropy over the label tokens, by their weight.
    pub loss: f64,
    /// Label tokens that the model ranked first.
    pub correct: u64,
    pub labels: u64,
    /// Tokens that went through the model.
    pub tokens: u64,
}

impl Score {
    /// Share of the label tokens that the model ranked first.
    pub fn token_accuracy(&self) -> f64 {
        self.correct as f64 / self.labels.max(1) as f64
    }
}

impl Session {
    /// Gathers the gradient of the mean loss over all label tokens of `batches`. How the examples
    /// are spread over the micro-batches does not change it.
    pub fn forward_backward(&mut self, batches: &[MicroBatch]) -> Result<Score, RunError> {
        for param in self.model.trainable() {
            param.zero_grad();
        }
        let weight = batches.iter().map(MicroBatch::label_weight).sum();
        let batches = batches.iter().map(Ok);
        let score = self.pass(batches, weight, true, &mut |_| ControlFlow::Continue(()))?;
        Ok(score.unwrap_or_default())
    }

    /// Loss and accuracy without a gradient; `weight` is that of all labels together. `on_batch` is told how
    /// many examples are done; where it breaks off, there is no score.
    pub fn score(
        &self,
        batches: impl Iterator<Item = Result<MicroBatch, FileError>>,
        weight: f64,
        on_batch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Score>, RunError> {
        self.pass(batches, weight, false, on_batch)
    }

    fn pass(
        &self,
        batches: impl Iterator<Item = Result<impl Borrow<MicroBatch>, FileError>>,
        weight: f64,
        training: bool,
        on_batch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Score>, RunError> {
        let scale = if weight > 0.0 { 1.0 / weight } else { 0.0 };
        let mut score = Score::default();
        let mut done = 0;
        for batch in batches {
            let batch = batch?;
            let batch = batch.borrow();
            let packed = self.pack(batch);
            let tape = Tape::new(TapeOptions {
                mode: if training { Mode::Explicit } else { Mode::Infer },
                checkpointing: self.checkpointing,
                dropout: training
                    .then(|| Dropout::new(self.step_seed(), done as u64, packed.lengths())),
            });
            let (model, how) = (&self.model, &self.method);
            let loss = tch::no_grad(|| method::loss(how, model, &tape, &packed, batch, scale));
            score.loss += loss.value();
            if !score.loss.is_finite() {
                return Err(RunError::NotFinite { what: "the loss", step: self.step + 1 });
            }
            if training {
                tch::no_grad(|| loss.backward(&tape));
            }
            score.correct += loss.correct() as u64;
            score.labels += loss.count as u64;
            score.tokens += batch.tokens();
            done += batch.lengths.len();
            if on_batch(done).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(score))
    }

    /// The tokens of `batch`, filled up to a round number in bf16 by a sequence that nothing is learned
    /// from: oneDNN compiles code for each number of rows that a bf16 product has, and keeps it, so
    /// that a new number in every micro-batch would cost time and ever more memory.
    fn pack(&self, batch: &MicroBatch) -> Packed {
        let (mut ids, mut lengths) = (batch.ids.clone(), batch.lengths.clone());
        let round = if self.model.kind() == Kind::BFloat16 { ROUND_ROWS } else { 1 };
        let fill = ids.len().next_multiple_of(round) - ids.len();
        if fill > 0 {
            ids.resize(ids.len() + fill, 0);
            lengths.push(fill as i64);
        }
        Packed::sharing(&ids, &lengths, batch.shared as i64, self.model.device())
    }

    /// How examples are packed for this model: to be learned from, or to be scored.
    pub fn packing(&self, most_tokens: usize, training: bool) -> Packing {
        // Dropout is drawn for each example by itself.
        let draws = self.model.adapter().is_some_and(|adapter| adapter.dropout > 0.0);
        let shares_up_to = match (training && draws, self.model.long_from()) {
            (true, _) => 0,
            // Longer sequences turn their positions otherwise, the beginning too.
            (false, Some(limit)) => limit,
            (false, None) => usize::MAX,
        };
        Packing { most_tokens, shares_up_to }
    }

    /// Takes one optimizer step with the gathered gradient, and returns its norm before clipping. A
    /// gradient that is not finite leaves the weights as they are.
    pub fn optim_step(&mut self, learning_rate: f64) -> Result<f64, RunError> {
        let params: Vec<&Param> = self.model.trainable().iter().map(AsRef::as_ref).collect();
        let norm = optim::global_norm(&params);
        if !norm.is_finite() {
            return Err(RunError::NotFinite { what: "the gradient", step: self.step + 1 });
        }
        self.optimizer.step(&params, norm, learning_rate);
        for param in params {
            param.zero_grad();
        }
        self.step += 1;
        Ok(norm)
    }

    /// Answers to prompts of token ids. `on_token` may end an answer early.
    pub fn sample(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(usize, u32) -> Flow,
    ) -> Vec<Vec<u32>> {
        generate(&self.model, prompts, options, on_token)
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Optimizer steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// A seed for each step, so that a resumed run draws what the uninterrupted one would have drawn.
    fn step_seed(&self) -> u64 {
        self.seed ^ self.step.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// AdamW's numbers out of the run specification.
fn settings(training: &Training) -> Settings {
    Settings {
        beta1: training.adam_beta1,
        beta2: training.adam_beta2,
        epsilon: training.adam_epsilon,
        weight_decay: training.weight_decay,
        max_grad_norm: training.max_grad_norm,
    }
}
