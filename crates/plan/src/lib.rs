//! Pure decisions: what a run will do, what should exist in the cluster for it, and why. No I/O and no
//! clock: all that was observed comes in as an argument.
//!
//! Read [`resolve::resolve`] and [`plan`] first. The one turns a validated workspace, and what was found
//! out about model, data and machine, into the [`api::RunSpec`] that the trainer reads, with the reason
//! for each choice. The other turns a workspace, and what was seen in the cluster, into the objects that
//! should exist, the status to show and when to look again.

mod admit;
mod attempts;
pub mod capacity;
pub mod catalogue;
mod decide;
mod end;
mod gate;
pub mod histogram;
pub mod inputs;
mod least;
pub mod names;
mod nodes;
pub mod observed;
mod phase;
mod published;
mod questions;
mod release;
pub mod render;
pub mod resolve;
pub mod revision;
mod seen;
pub mod server;
mod sizing;
mod smaller;
mod stall;
mod status;
pub mod targets;
pub mod time;
mod trouble;
mod uses;

pub use capacity::{Memory, Shape};
pub use catalogue::Catalogue;
pub use decide::{Happening, Next, Plan, Removal, plan};
pub use gate::judge;
pub use histogram::{Bucket, histogram};
pub use inputs::{Inputs, Sources, data_block, seed};
pub use least::{Asked, Least, least, preflight};
pub use names::workspace_revision;
pub use observed::{
    ClusterFacts, NodeFacts, Observed, Obstacle, RegistryAnswer, SecretKind, SecretState, Settings,
};
pub use questions::{Questions, questions};
pub use render::{Object, Pool, kind as pool_kind};
pub use resolve::{Choice, Estimate, Resolved, resolve};
pub use server::{ServerObject, ServerPlan, Telling, plan_server};
pub use sizing::{Candidate, Sizing, sizing};
pub use status::unreadable;
