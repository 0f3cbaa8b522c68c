//! The examples: found, read, checked, split and tokenised, then dealt out in batches.
//!
//! [`Dataset::read`] reads everything and reports every fault and the lengths of all examples; the examples
//! themselves it leaves in a file (`store`), which the next reading of the same data finds (`cache`). It
//! touches no tensors: a [`MicroBatch`] holds plain numbers, and the trainer makes tensors of them.
//!
//! A record goes through these steps, each a file: `files` (which files), `read` (records with their
//! lines), `shape` (what a record says), `encode` (tokens, and which of them are learned), `split`
//! (train, validation or test), `loader` (batches).

mod batch;
mod cache;
mod codec;
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
mod store;
mod tally;
mod template;

pub use batch::{Batch, MicroBatch, Packing, micro_batches};
pub use dataset::{DataError, Dataset, survey};
pub use example::{Example, Learned, Question};
pub use loader::{Loader, LoaderState, order};
pub use meter::Tell;
pub use split::Split;
pub use store::Examples;

#[cfg(test)]
mod tests;
