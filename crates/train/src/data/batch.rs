//! Packs examples into micro-batches: whole sequences one after another, without padding.

use super::example::Example;

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
pub fn micro_batches<'a>(
    examples: impl IntoIterator<Item = &'a Example>,
    most_tokens: usize,
) -> Vec<MicroBatch> {
    let mut sorted: Vec<&Example> = examples.into_iter().collect();
    sorted.sort_by_key(|example| example.ids.len());
    let mut batches: Vec<MicroBatch> = Vec::new();
    for example in sorted {
        match batches.last_mut() {
            Some(last) if last.ids.len() + example.ids.len() <= most_tokens => last.push(example),
            _ => {
                let mut next = MicroBatch::default();
                next.push(example);
                batches.push(next);
            }
        }
    }
    batches
}
