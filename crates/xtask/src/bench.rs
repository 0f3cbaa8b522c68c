//! `cargo xtask bench`: measurements, beside those of peers.

mod data;
mod operator;
mod serve;
mod sft;
mod soak;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Which {
    /// Supervised fine-tuning with LoRA, against transformers, PEFT and TRL
    Sft(sft::Sft),
    /// All workloads of `sft`, into the table of docs/benchmarks.md
    Table(sft::table::Table),
    /// Reading data: speed and memory, with few rows and with many
    Data(data::Data),
    /// The operator with 1,000 workspaces on a real API server
    Operator(operator::Operator),
    /// Serving with many adapters, against transformers with PEFT and llama.cpp
    Serve(serve::Serve),
    /// A server under mixed load while adapters come and go
    Soak(soak::Soak),
}

pub(crate) fn run(which: &Which) -> Result<()> {
    match which {
        Which::Sft(sft) => sft.run(),
        Which::Table(table) => table.run(),
        Which::Data(data) => data.run(),
        Which::Operator(operator) => operator.run(),
        Which::Serve(serve) => serve.run(),
        Which::Soak(soak) => soak.run(),
    }
}
