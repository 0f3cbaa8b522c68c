//! Counts what a split holds.

use api::facts::SplitFacts;
use lm::packed::LEAST_SHARED;

use super::example::{Example, common};

/// How many lengths the facts keep at most.
const QUANTILES: usize = 1000;

/// Facts of a split in the making.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lengths: Vec<u32>,
    tokens: u64,
    label_tokens: u64,
    /// What all examples have begun with so far.
    beginning: Option<Vec<u32>>,
}

impl Tally {
    pub(super) fn add(&mut self, example: &Example) {
        self.lengths.push(example.ids.len() as u32);
        self.tokens += example.ids.len() as u64;
        self.label_tokens += example.label_tokens() as u64;
        let free = &example.ids[..example.free()];
        match &mut self.beginning {
            Some(beginning) => beginning.truncate(common(beginning, free)),
            None => self.beginning = Some(free.to_vec()),
        }
    }

    pub(super) fn facts(mut self) -> SplitFacts {
        self.lengths.sort_unstable();
        SplitFacts {
            examples: self.lengths.len() as u64,
            tokens: self.tokens,
            label_tokens: self.label_tokens,
            longest: self.lengths.last().copied().map_or(0, u64::from),
            lengths: thinned(&self.lengths),
            shared: match self.beginning {
                Some(beginning) if self.lengths.len() > 1 && beginning.len() >= LEAST_SHARED => {
                    beginning.len() as u64
                }
                _ => 0,
            },
        }
    }
}

/// At most [`QUANTILES`] of the ascending `lengths`, evenly spread, with the first and the last.
fn thinned(lengths: &[u32]) -> Vec<u32> {
    if lengths.len() <= QUANTILES {
        return lengths.to_vec();
    }
    let last = lengths.len() - 1;
    (0..QUANTILES).map(|index| lengths[index * last / (QUANTILES - 1)]).collect()
}
