//! The training engine: it reads one [`api::RunSpec`], speaks through [`event::Event`]s, and leaves
//! an adapter. It knows nothing of Kubernetes or registries.
//!
//! Read `trainer.rs` first: the loop, in the order things happen. `session.rs` has the four verbs
//! that it is written in, and `methods/` one file for each way of teaching.

pub mod checkpoint;
pub mod data;
pub mod error;
mod evaluate;
pub mod event;
mod events;
mod facts;
pub mod files;
pub mod method;
pub mod methods;
pub mod metrics;
pub mod optim;
pub mod report;
pub mod run_dir;
pub mod runtime;
pub mod schedule;
pub mod session;
pub mod snapshot;
pub mod tensors;
mod trainer;

pub use error::{ExitClass, RunError};
pub use event::Event;
pub use facts::{FactsError, model_facts};
pub use run_dir::Outcome;
pub use trainer::{Given, run, run_on};

#[cfg(test)]
mod tests;
