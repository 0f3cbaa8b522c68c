//! The APIs `FineTuneWorkspace` and `ModelServer`: their types, defaults, validation, condition reasons,
//! the `RunSpec` that the trainer reads, and the one module that reads YAML. No I/O and no clock.

pub mod condition;
pub mod facts;
pub mod fault;
mod formats;
mod later;
pub mod model_server;
pub mod names;
mod rules;
pub mod run_spec;
mod schema;
pub mod termination;
pub mod valid;
pub mod validate;
pub mod workspace;
pub mod yaml;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

pub use facts::{DataFacts, GpuFacts, LinearFacts, MachineFacts, ModelFacts, SplitFacts};
pub use fault::Fault;
pub use model_server::ModelServer;
pub use run_spec::RunSpec;
pub use schema::suggestion;
pub use termination::{Termination, TrainerStatus};
pub use valid::Workspace;
pub use validate::validate;
pub use workspace::FineTuneWorkspace;
pub use yaml::load;

/// The custom resource definition of `FineTuneWorkspace` as YAML, as it stands in `deploy/crds`.
pub fn crd_yaml() -> String {
    generated(&schema::CRD)
}

/// The custom resource definition of `ModelServer` as YAML, as it stands in `deploy/crds`.
pub fn model_server_crd_yaml() -> String {
    generated(&schema::SERVERS)
}

fn generated(definition: &CustomResourceDefinition) -> String {
    let yaml = serde_yaml::to_string(definition).expect("a CRD holds nothing that YAML cannot");
    format!("# Generated from crates/api by `cargo xtask gen`. Do not edit.\n{yaml}")
}
