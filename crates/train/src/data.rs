//! The examples: found, read, checked, split and tokenised, then dealt out in batches.
//!
//! [`survey`] reads everything and reports every fault and the lengths of all examples;
//! [`Dataset::read`] keeps the examples as well, for training. Both are the same reading ([`load`]), and
//! neither touches tensors: a [`MicroBatch`] holds plain numbers, and the trainer makes tensors of them.
//!
//! A record goes through these steps, each a file: `files` (which files), `read` (records with their
//! lines), `shape` (what a record says), `encode` (tokens, and which of them are learned), `split`
//! (train, validation or test), `loader` (batches).

mod batch;
mod dataset;
mod digest;
mod encode;
mod example;
mod faults;
mod files;
mod intake;
mod load;
mod loader;
mod meter;
mod parallel;
mod read;
mod sample;
mod shape;
mod split;
mod tally;
mod template;

pub use batch::{Batch, MicroBatch, micro_batches};
pub use dataset::{DataError, Dataset, survey, survey_with};
pub use example::{Example, Learned, Question};
pub use loader::{Loader, LoaderState, order};
pub use meter::Tell;
pub use split::Split;

#[cfg(test)]
mod tests;
