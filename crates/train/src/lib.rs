//! The training engine: it reads one [`api::RunSpec`], speaks through [`event::Event`]s, and leaves
//! an adapter. It knows nothing of Kubernetes or registries.
//!
//! Read `trainer.rs` first: the loop, in the order things happen. `session.rs` has the four verbs
//! that it is written in, and `methods/` one file for each way of teaching.

pub mod checkpoint;
pub mod error;
pub mod event;
pub mod files;
pub mod optim;
pub mod runtime;
pub mod schedule;
pub mod tensors;

#[cfg(test)]
mod tests;
