//! Deals out the training examples: each once an epoch, in an order that the seed decides.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Packing, micro_batches};
use super::example::Example;
use super::store::Examples;
use crate::files::FileError;

/// Where a loader stands. With the seed it decides every later batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoaderState {
    /// Passes that are complete.
    pub epoch: u64,
    /// Examples of this pass that were dealt out.
    pub cursor: usize,
}

/// An endless supply of batches.
///
/// An epoch's last batch holds what is left, as in `transformers.Trainer`: an epoch has
/// `ceil(examples / batch size)` steps.
#[derive(Clone, Debug)]
pub struct Loader<'a> {
    examples: &'a Examples,
    seed: u64,
    state: LoaderState,
    order: Vec<u32>,
}

impl<'a> Loader<'a> {
    /// A loader that goes on from `state`; the default state is the start.
    pub fn new(examples: &'a Examples, seed: u64, state: LoaderState) -> Self {
        let order = order(examples.len(), seed, state.epoch);
        Self { examples, seed, state, order }
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> LoaderState {
        self.state
    }

    /// Whether the last batch ended an epoch.
    pub fn at_epoch_end(&self) -> bool {
        self.state.cursor >= self.examples.len()
    }

    /// The next `batch_size` examples, fewer at the end of an epoch, cut into micro-batches. Empty only where
    /// there are no examples.
    pub fn next(&mut self, batch_size: usize, packing: Packing) -> Result<Batch, FileError> {
        if self.at_epoch_end() {
            self.state = LoaderState { epoch: self.state.epoch + 1, cursor: 0 };
            self.order = order(self.examples.len(), self.seed, self.state.epoch);
        }
        let start = self.state.cursor;
        let end = (start + batch_size.max(1)).min(self.examples.len());
        let chosen = self.order[start..end].iter().map(|index| self.examples.get(*index as usize));
        let chosen = chosen.collect::<Result<Vec<Example>, _>>()?;
        let micro_batches = micro_batches(&chosen, packing);
        self.state.cursor = end;
        Ok(Batch {
            epoch: self.state.epoch,
            examples: end - start,
            tokens: micro_batches.iter().map(super::MicroBatch::tokens).sum(),
            label_tokens: micro_batches.iter().map(|batch| batch.targets.len() as u64).sum(),
            label_weight: micro_batches.iter().map(super::MicroBatch::label_weight).sum(),
            micro_batches,
        })
    }
}

/// The order of `count` examples in an epoch: Fisher and Yates' shuffle, driven by the stream
/// cipher `ChaCha8` with the seed as its key and the epoch as its stream.
pub fn order(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        // A multiplication in place of a division (Lemire 2019); the bias is below 2^-32.
        let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, other as usize);
    }
    order
}
