//! Packs examples into micro-batches: whole sequences one after another, without padding.

use super::example::Example;
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
    /// `[N]` rows that predict: row `t` predicts token `t + 1` of the same sequence.
    pub positions: Vec<i64>,
    /// `[N]` the token that each of these rows has to predict.
    pub targets: Vec<i64>,
    /// `[N]` weight of each target; none where every weight is 1.
    pub weights: Option<Vec<f32>>,
}

impl MicroBatch {
    /// Sum of the weights of all targets.
    pub fn label_weight(&self) -> f64 {
        match &self.weights {
            Some(weights) => weights.iter().copied().map(f64::from).sum(),
            None => self.targets.len() as f64,
        }
    }

    fn push(&mut self, example: &Example) {
        let offset = self.ids.len() as i64;
        for run in &example.learned {
            for index in run.tokens.clone() {
                self.positions.push(offset + index as i64 - 1);
                self.targets.push(i64::from(example.ids[index]));
            }
            self.push_weights(run.tokens.len(), run.weight);
        }
        self.ids.extend(example.ids.iter().copied().map(i64::from));
        self.lengths.push(example.ids.len() as i64);
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

/// Cuts `examples` into micro-batches of at most `most_tokens` tokens.
///
/// Examples stay whole and are sorted by length, so that equal lengths stand together and can share
/// one attention call. One that is longer than `most_tokens` goes alone.
pub fn micro_batches(examples: &[Example], most_tokens: usize) -> Vec<MicroBatch> {
    let groups = cut(examples.iter().map(|example| example.ids.len()), most_tokens);
    let join = |group: Vec<usize>| {
        let mut batch = MicroBatch::default();
        for index in group {
            batch.push(&examples[index]);
        }
        batch
    };
    groups.into_iter().map(join).collect()
}

impl Examples {
    /// The same of all examples here, each micro-batch made when it is asked for.
    pub fn micro_batches(
        &self,
        most_tokens: usize,
    ) -> impl Iterator<Item = Result<MicroBatch, FileError>> {
        cut(self.lengths(), most_tokens).into_iter().map(|group| {
            let mut batch = MicroBatch::default();
            for index in group {
                batch.push(&self.get(index)?);
            }
            Ok(batch)
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
