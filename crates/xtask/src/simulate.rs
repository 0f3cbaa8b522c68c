//! `cargo xtask simulate capacity`: GPU-hours, waits and cost of a long trace of workspaces, on paper.
//!
//! `crates/plan/examples/simulate_capacity` simulates; this runs it, and with `--write` puts the page into
//! the docs.

use std::fs;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::shell;

/// What is simulated.
#[derive(Debug, Subcommand)]
pub(crate) enum Which {
    /// 10,000 workspaces under our policy of giving GPU nodes and under another one
    Capacity(Capacity),
}

/// How.
#[derive(Debug, Args)]
pub(crate) struct Capacity {
    /// Put the page into docs/capacity-simulation.md
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(which: &Which) -> Result<()> {
    let Which::Capacity(Capacity { write }) = which;
    let mut cargo = shell::cargo();
    cargo.args(["run", "--release", "--quiet", "--package", "plan"]);
    let output = cargo.args(["--example", "simulate_capacity"]).output();
    let output = output.context("cannot start the simulation")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the simulation failed:\n{errors}");
    let page = String::from_utf8(output.stdout).context("the page is no text")?;
    print!("{page}");
    if *write {
        let path = shell::workspace().join("docs/capacity-simulation.md");
        fs::write(&path, page).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
