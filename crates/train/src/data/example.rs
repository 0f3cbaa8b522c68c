//! An example in tokens, as it is learned and as it is asked.

use std::ops::Range;

/// One sequence with the tokens of it that are learned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    pub ids: Vec<u32>,
    /// Runs of learned tokens, ascending and apart. The first token of a sequence is never among
    /// them: nothing comes before it that could predict it.
    pub learned: Vec<Learned>,
    /// What to ask and what to expect, for held-out examples; none where all is learned.
    pub question: Option<Question>,
    /// Where the record stands: index of its file in [`Dataset::files`](super::Dataset), and line.
    pub file: u32,
    pub line: u64,
}

/// A run of learned tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Indices into the example's ids.
    pub tokens: Range<usize>,
    /// Weight of each of these tokens in the loss.
    pub weight: f32,
}

/// An example as a question to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The tokens that an answer is generated from.
    pub prompt_ids: Vec<u32>,
    /// What a reader should see as the question: the prompt, or the last message before the answer.
    pub prompt: String,
    /// The right answer, as the data has it.
    pub answer: String,
}

impl Example {
    /// Weight of each token in the loss; 0 is not learned.
    pub fn weights(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.ids.len()];
        for run in &self.learned {
            weights[run.tokens.clone()].fill(run.weight);
        }
        weights
    }

    /// Tokens at the start from which nothing is predicted: the one before a learned token predicts it.
    pub(super) fn free(&self) -> usize {
        let learned = self.learned.first().map_or(self.ids.len(), |run| run.tokens.start);
        learned.saturating_sub(1)
    }

    /// How many tokens are learned.
    pub fn label_tokens(&self) -> usize {
        self.learned.iter().map(|run| run.tokens.len()).sum()
    }

    /// Cuts the end off.
    pub(super) fn truncate(&mut self, longest: usize) {
        self.ids.truncate(longest);
        for run in &mut self.learned {
            run.tokens.end = run.tokens.end.min(longest);
        }
        self.learned.retain(|run| run.tokens.start < run.tokens.end);
    }
}

/// How many tokens both begin with.
pub(super) fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(left, right)| left == right).count()
}
