//! `cargo xtask`: set-up, quickstart, tests, generated files and benchmarks.
//!
//! It builds in seconds and needs no LibTorch: it is what fetches LibTorch.

#![expect(clippy::print_stdout, reason = "these tasks talk to a person")]

mod bench;
mod cluster;
mod deny;
mod fetch;
mod generate;
mod images;
mod libtorch;
mod peer;
mod quickstart;
mod review_data;
mod setup;
mod shell;
mod simulate;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set-up, quickstart, tests and generated files of Anneal")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Fetch what the build and the tests need: LibTorch, a small base model, a small data set
    Setup,
    /// Set up, build, and fine-tune a small language model on this machine
    Quickstart,
    /// Set up, then format check, lints and every test
    Test,
    /// What CI runs: `test`, with everything that was left out being a failure
    Ci,
    /// Write the generated files: custom resource definitions, roles, the chart's copies
    Gen,
    /// Make the images of operator, trainer and server, with no Docker, and tell their digests
    Images(images::Options),
    /// Start or end a whole Kubernetes on this machine, with no Docker
    Cluster {
        #[command(subcommand)]
        what: cluster::What,
    },
    /// Measure against peers: training, and the operator under load
    Bench {
        #[command(subcommand)]
        which: bench::Which,
    },
    /// Work out on paper what cannot be measured here
    Simulate {
        #[command(subcommand)]
        which: simulate::Which,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Setup => setup::run(),
        Task::Quickstart => quickstart::run(),
        Task::Test => test::run(test::Strictness::from_env()),
        Task::Ci => test::run(test::Strictness::NothingLeftOut),
        Task::Gen => generate::run(),
        Task::Images(options) => images::run(&options),
        Task::Cluster { what } => cluster::run(&what),
        Task::Bench { which } => bench::run(&which),
        Task::Simulate { which } => simulate::run(&which),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
