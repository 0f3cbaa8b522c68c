//! `cargo xtask bench serve`: the engine answers many requests at once, beside transformers and PEFT.
//!
//! Both sides get the same numbers of requests, adapters and tokens on the same model, in turns, each run in
//! a process of its own. The engine is measured without HTTP, and so is the peer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::{peer, setup, shell};

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Requests at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 32])]
    concurrent: Vec<u32>,
    /// Adapters that they name in turns; 0 is the base model
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 32])]
    adapters: Vec<u32>,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 64)]
    prompt: u32,
    /// Tokens of each answer
    #[arg(long, default_value_t = 64)]
    answer: u32,
    /// Rank of the adapters, which are on all linear layers
    #[arg(long, default_value_t = 16)]
    rank: u32,
    /// Number format of weights and activations: fp32 or bf16
    #[arg(long, default_value = "fp32")]
    precision: String,
    /// Folder of the base model; by default SmolLM2, converted for the peer the first time
    #[arg(long)]
    model: Option<PathBuf>,
    /// Leave the peer out
    #[arg(long)]
    alone: bool,
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        let program = build()?;
        let python = if self.alone { None } else { Some(peer::python()?) };
        let model = match (&self.model, &python) {
            (Some(model), _) => model.clone(),
            (None, Some(python)) => converted(python)?,
            (None, None) => setup::base_model()?,
        };
        println!(
            "{:>10} {:>8} {:>12} {:>12} {:>8} {:>12} {:>12} {:>8}",
            "concurrent", "adapters", "tokens/s", "peer", "ratio", "first s", "peer", "of base"
        );
        for concurrent in &self.concurrent {
            let mut base = None;
            for adapters in &self.adapters {
                let ours =
                    report(self.side(Command::new(&program), &model, *concurrent, *adapters))?;
                let theirs = match &python {
                    Some(python) => {
                        let mut command = Command::new(python);
                        command.arg(shell::workspace().join(peer::SCRIPTS).join("peer_serve.py"));
                        Some(report(self.side(command, &model, *concurrent, *adapters))?)
                    }
                    None => None,
                };
                let rate = number(&ours, "tokensPerSecond");
                let base = *base.get_or_insert(rate);
                print_row(*concurrent, *adapters, &ours, theirs.as_ref(), rate / base);
            }
        }
        Ok(())
    }

    fn side(&self, mut command: Command, model: &Path, concurrent: u32, adapters: u32) -> Command {
        command.arg(model).arg(&self.precision).env("OMP_WAIT_POLICY", "PASSIVE");
        for value in [concurrent, adapters, self.prompt, self.answer, self.rank] {
            command.arg(value.to_string());
        }
        command
    }
}

fn print_row(concurrent: u32, adapters: u32, ours: &Value, theirs: Option<&Value>, of_base: f64) {
    let [rate, first] = ["tokensPerSecond", "firstTokenSeconds"];
    let peer = |field: &str| theirs.map_or(f64::NAN, |theirs| number(theirs, field));
    println!(
        "{concurrent:>10} {adapters:>8} {:>12.1} {:>12.1} {:>7.2}x {:>12.3} {:>12.3} {of_base:>7.2}x",
        number(ours, rate),
        peer(rate),
        number(ours, rate) / peer(rate),
        number(ours, first),
        peer(first),
    );
}

fn build() -> Result<PathBuf> {
    let what = ["build", "--release", "--package", "serve", "--example", "bench_serve"];
    shell::run(shell::cargo().args(what))?;
    Ok(shell::target_dir().join("release").join("examples").join("bench_serve"))
}

/// SmolLM2 as a Hugging Face folder, which both sides read.
fn converted(python: &Path) -> Result<PathBuf> {
    let folder = shell::cache()?.join("models").join("smollm2-hf");
    if !folder.join("model.safetensors").is_file() {
        let script = shell::workspace().join(peer::SCRIPTS).join("convert_gguf.py");
        shell::run(Command::new(python).arg(script).arg(setup::base_model()?).arg(&folder))?;
    }
    Ok(folder)
}

/// Runs one side and reads its last line.
fn report(mut command: Command) -> Result<Value> {
    let output = shell::output(&mut command)?;
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("`{line}` is no report"))
}

fn number(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or(f64::NAN)
}
