//! Pure decisions: what a run will do, and why. No I/O and no clock: all that was observed comes in as
//! an argument.
//!
//! Read [`resolve::resolve`] first: it turns a validated workspace, and what was found out about model,
//! data and machine, into the [`api::RunSpec`] that the trainer reads, with the reason for each choice.

pub mod capacity;
pub mod histogram;
pub mod inputs;
pub mod resolve;
pub mod revision;
pub mod targets;
pub mod time;

pub use capacity::{Memory, Shape};
pub use histogram::{Bucket, histogram};
pub use inputs::{Inputs, Sources, data_block, seed};
pub use resolve::{Choice, Estimate, Resolved, resolve};
