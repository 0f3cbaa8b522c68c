//! The `FineTuneWorkspace` API: its types, defaults, validation, condition reasons, the `RunSpec`
//! that the trainer reads, and the one module that reads YAML. No I/O and no clock.

pub mod facts;
pub mod fault;
pub mod run_spec;

pub use facts::{DataFacts, GpuFacts, LinearFacts, MachineFacts, ModelFacts, SplitFacts};
pub use fault::Fault;
pub use run_spec::RunSpec;
