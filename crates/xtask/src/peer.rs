//! The Python peer of the speed benchmark: its environment, its inputs, and one run of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::{Setting, Sft};
use crate::{fetch, shell};

const SCRIPTS: &str = "tests/numerics/scripts";

/// An interpreter with the pinned packages, made where it is missing or its list has changed. Tests
/// that need the same packages share it.
pub(crate) fn python() -> Result<PathBuf> {
    let requirements = shell::workspace().join(SCRIPTS).join("requirements.txt");
    let folder = shell::cache()?.join("venv-peer");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.sha256"));
    let wanted = fetch::sha256(&requirements)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found.trim() == wanted) {
        return Ok(python);
    }
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--requirement"];
    shell::run(Command::new(&python).args(install).arg(&requirements))?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}

/// A model with random weights and rows of text that both sides read.
pub(crate) fn inputs(python: &Path, args: &Sft) -> Result<PathBuf> {
    let folder = shell::cache()?.join("bench").join(&args.shape);
    let rows = (args.steps * args.batch_size).to_string();
    let mut make = script(python, "make_bench_inputs.py");
    make.arg(&args.shape).arg(&folder).args(["--rows", &rows, "--lengths", &args.lengths]);
    shell::output(&mut make)?;
    Ok(folder)
}

/// One run of the peer.
pub(crate) fn run(python: &Path, setting: &Setting, args: &Sft) -> Result<Value> {
    let mut command = script(python, "peer_sft.py");
    let out = setting.scratch.join("peer");
    command.arg("--model").arg(&setting.inputs).arg("--rows").arg(&setting.rows);
    command.arg("--out").arg(&out).arg("--order").arg(&setting.order);
    let numbers = [
        ("--steps", args.steps),
        ("--batch-size", args.batch_size),
        ("--rank", args.rank),
        ("--threads", args.threads),
        ("--warm-steps", args.warm_steps),
    ];
    for (name, number) in numbers {
        command.arg(name).arg(number.to_string());
    }
    command.args(["--precision", &args.precision]);
    let text = shell::output(&mut command)?;
    let last = text.lines().last().context("the peer printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("the peer printed `{last}`"))
}

fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(shell::workspace().join(SCRIPTS).join(name));
    command.env("OMP_WAIT_POLICY", "PASSIVE").env("HF_HUB_OFFLINE", "1");
    command
}
