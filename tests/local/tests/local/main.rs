//! End-to-end tests by the real program. Each file is named after a behaviour.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_data;
mod bad_model;
mod bad_output;
mod bad_yaml;
mod checkpoints;
mod data_cache;
mod generate;
mod hub;
mod memory;
mod plan;
mod pod;
mod quantization;
mod registry;
mod registry_login;
mod resume;
mod run;
mod samples;
mod serve;
mod structure;
mod surface;
mod trainer;
