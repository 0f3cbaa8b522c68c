//! `cargo xtask bench soak`: a server under mixed load for ten minutes while adapters come and go.
//!
//! It is the test `crates/serve/tests/soak.rs`, which is short otherwise, for a longer time: fails on any
//! error but the declared ones, on a stream that is not well formed, and where memory grows.

use anyhow::Result;
use clap::Args;

use crate::shell;

/// How long.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Seconds of load
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

impl Soak {
    pub(crate) fn run(&self) -> Result<()> {
        let mut cargo = shell::cargo();
        cargo.args([
            "test",
            "--release",
            "--package",
            "serve",
            "--test",
            "soak",
            "--",
            "--nocapture",
        ]);
        shell::run(cargo.env("ANNEAL_SOAK_SECONDS", self.seconds.to_string()))
    }
}
