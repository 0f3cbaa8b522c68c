//! Packs examples into micro-batches: sequences one after another, without padding. What all of a micro-batch begin
//! with (a template's system message, an instruction) is in it once.

use std::borrow::Borrow;

use lm::packed::LEAST_SHARED;

use super::example::{Example, common};
use super::store::Examples;
use crate::files::FileError;

/// The examples of one optimizer step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// In the order to run them in; their losses add up.
    pub micro_batches: Vec<MicroBatch>,
    /// Passes over the data before this batch.
    pub epoch: u64,
    pub examples: usize,
    pub tokens: u64,
    pub label_tokens: u64,
    /// Sum of the weights of all label tokens: what the loss of the step is divided by.
    pub label_weight: f64,
}

/// What goes through the model at once. T tokens, of which N are predicted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MicroBatch {
    /// `[T]` token ids.
    pub ids: Vec<i64>,
    /// Tokens of each sequence; they sum up to T. Equal lengths stand together.
    pub lengths: Vec<i64>,
    /// Tokens of the first sequence that all others begin with too, and do not repeat.
    pub shared: usize,
    /// `[N]` rows that predict: row `t` predicts token `t + 1` of the same sequence.
    pub positions: Vec<i64>,
    /// `[N]` the token that each of these rows has to predict.
    pub targets: Vec<i64>,
    /// `[N]` weight of each target; none where every weight is 1.
    pub weights: Option<Vec<f32>>,
}

/// How examples are cut into micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Tokens of a micro-batch, each example counted whole.
    pub most_tokens: usize,
    /// Whether a common beginning is packed once: where no example is longer than this.
    pub shares_up_to: usize,
}

/// Attention copies every row on its way there and back, so that a tenth of the rows has to be saved.
const LEAST_SAVED: usize = 10;

impl MicroBatch {
    fn of(examples: &[impl Borrow<Example>], packing: Packing) -> Self {
        let is_short = |example: &Example| example.ids.len() <= packing.shares_up_to;
        let shares = examples.iter().all(|example| is_short(example.borrow()));
        let shared = if shares { shared(examples) } else { 0 };
        let mut batch = Self { shared, ..Self::default() };
        for example in examples {
            batch.push(example.borrow());
        }
        batch
    }

    /// Tokens of all sequences, each whole.
    pub fn tokens(&self) -> u64 {
        (self.ids.len() + self.shared * self.lengths.len().saturating_sub(1)) as u64
    }

    /// Sum of the weights of all targets.
    pub fn label_weight(&self) -> f64 {
        match &self.weights {
            Some(weights) => weights.iter().copied().map(f64::from).sum(),
            None => self.targets.len() as f64,
        }
    }

    fn push(&mut self, example: &Example) {
        let left_out = if self.lengths.is_empty() { 0 } else { self.shared };
        let offset = self.ids.len() as i64 - left_out as i64;
        for run in &example.learned {
            for index in run.tokens.clone() {
                self.positions.push(offset + index as i64 - 1);
                self.targets.push(i64::from(example.ids[index]));
            }
            self.push_weights(run.tokens.len(), run.weight);
        }
        let own = &example.ids[left_out..];
        self.ids.extend(own.iter().copied().map(i64::from));
        self.lengths.push(own.len() as i64);
    }

    /// Weights are written down from the first one on that is not 1.
    fn push_weights(&mut self, count: usize, weight: f32) {
        #[expect(clippy::float_cmp, reason = "1 is exact, and means that no weight was given")]
        if self.weights.is_none() && weight == 1.0 {
            return;
        }
        let before = self.targets.len() - count;
        let weights = self.weights.get_or_insert_with(|| vec![1.0; before]);
        weights.extend(std::iter::repeat_n(weight, count));
    }
}

/// Tokens that all begin with, and from which none of them predicts.
fn shared(examples: &[impl Borrow<Example>]) -> usize {
    let Some((first, others)) = examples.split_first().filter(|(_, others)| !others.is_empty())
    else {
        return 0;
    };
    let first = first.borrow();
    let beginning = others.iter().fold(&first.ids[..first.free()], |beginning, other| {
        let other = other.borrow();
        &beginning[..common(beginning, &other.ids[..other.free()])]
    });
    let tokens: usize = examples.iter().map(|example| example.borrow().ids.len()).sum();
    let is_worth_it =
        beginning.len() >= LEAST_SHARED && beginning.len() * others.len() * LEAST_SAVED >= tokens;
    if is_worth_it { beginning.len() } else { 0 }
}

/// Cuts `examples` into micro-batches.
///
/// Examples are sorted by length, so that equal lengths stand together and can share one attention call. One
/// that is longer than the most tokens goes alone.
pub fn micro_batches(examples: &[Example], packing: Packing) -> Vec<MicroBatch> {
    let groups = cut(examples.iter().map(|example| example.ids.len()), packing.most_tokens);
    let join = |group: Vec<usize>| {
        let group: Vec<&Example> = group.into_iter().map(|index| &examples[index]).collect();
        MicroBatch::of(&group, packing)
    };
    groups.into_iter().map(join).collect()
}

impl Examples {
    /// The same of all examples here, each micro-batch made when it is asked for.
    pub fn micro_batches(
        &self,
        packing: Packing,
    ) -> impl Iterator<Item = Result<MicroBatch, FileError>> {
        cut(self.lengths(), packing.most_tokens).into_iter().map(move |group| {
            let group = group.into_iter().map(|index| self.get(index));
            let group = group.collect::<Result<Vec<Example>, _>>()?;
            Ok(MicroBatch::of(&group, packing))
        })
    }
}

/// Which examples go together, by their lengths.
fn cut(lengths: impl Iterator<Item = usize>, most_tokens: usize) -> Vec<Vec<usize>> {
    let mut sorted: Vec<(usize, usize)> = lengths.zip(0..).collect();
    sorted.sort_by_key(|(length, _)| *length);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for (length, index) in sorted {
        match groups.last_mut() {
            Some(group) if tokens + length <= most_tokens => {
                group.push(index);
                tokens += length;
            }
            _ => {
                groups.push(vec![index]);
                tokens = length;
            }
        }
    }
    groups
}
