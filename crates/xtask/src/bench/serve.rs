//! `cargo xtask bench serve`: the engine answers many requests at once, beside transformers with PEFT, and
//! llama.cpp.
//!
//! All sides get the same numbers of requests, adapters and tokens on the same weights, in turns, each run in
//! a process of its own; the better of two counted rounds is told. The engine is measured without HTTP, and so
//! are the peers. llama.cpp is measured without adapters: it has none that differ within a batch.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::{peer, setup, shell};

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Requests at once, with commas between
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 32])]
    concurrent: Vec<u32>,
    /// Adapters that they name in turns, with commas between; 0 is the base model
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
    /// Number format of weights and activations: fp32, bf16, or int8 (weights alone, and without peers)
    #[arg(long, default_value = "fp32")]
    precision: String,
    /// Folder of the base model; by default SmolLM2, converted for the peer the first time
    #[arg(long)]
    model: Option<PathBuf>,
    /// Leave the peers out
    #[arg(long)]
    alone: bool,
}

/// What is measured, and by what.
struct Sides {
    ours: PathBuf,
    model: PathBuf,
    /// transformers with PEFT, and llama.cpp.
    peers: Option<(PathBuf, PathBuf)>,
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        let peers = if self.alone || self.precision == "int8" {
            None
        } else {
            Some((peer::python()?, peer::llama()?))
        };
        let model = match (&self.model, &peers) {
            (Some(model), _) => model.clone(),
            (None, Some((python, _))) => converted(python)?,
            (None, None) => setup::base_model()?,
        };
        let sides = Sides { ours: build()?, model, peers };
        println!("{} cores, {}, load {}", cores(), self.precision, load());
        println!(
            "| concurrent | adapters | tokens/s | of base | PEFT | ratio | llama.cpp | ratio | first token s | PEFT | llama.cpp |"
        );
        println!("|{}", " ---: |".repeat(11));
        for concurrent in &self.concurrent {
            let mut base = None;
            for adapters in &self.adapters {
                let [ours, peft, llama] = self.row(&sides, *concurrent, *adapters)?;
                let rate = number(ours.as_ref(), RATE);
                let of_base = rate / *base.get_or_insert(rate);
                print_row(*concurrent, *adapters, &[ours, peft, llama], of_base);
            }
        }
        println!("load {}", load());
        Ok(())
    }

    /// Reports of all sides for one load.
    fn row(&self, sides: &Sides, concurrent: u32, adapters: u32) -> Result<[Option<Value>; 3]> {
        let numbers = [concurrent, adapters, self.prompt, self.answer, self.rank];
        let ours = self.side(Command::new(&sides.ours), &sides.model, &numbers)?;
        let Some((python, llama)) = &sides.peers else { return Ok([Some(ours), None, None]) };
        let script = |python: &Path, name: &str| {
            let mut command = Command::new(python);
            command.arg(shell::workspace().join(peer::SCRIPTS).join(name));
            command
        };
        let peft = self.side(script(python, "peer_serve.py"), &sides.model, &numbers)?;
        // Its weights are those of SmolLM2's file, and it takes no adapters.
        let llama = if adapters == 0 && self.model.is_none() {
            let numbers = [concurrent, self.prompt, self.answer];
            Some(self.side(script(llama, "peer_llama.py"), &setup::base_model()?, &numbers)?)
        } else {
            None
        };
        Ok([Some(ours), Some(peft), llama])
    }

    fn side(&self, mut command: Command, model: &Path, numbers: &[u32]) -> Result<Value> {
        command.arg(model).arg(&self.precision).env("OMP_WAIT_POLICY", "PASSIVE");
        command.args(numbers.iter().map(ToString::to_string));
        report(command)
    }
}

const RATE: &str = "tokensPerSecond";
const FIRST: &str = "firstTokenSeconds";

fn print_row(concurrent: u32, adapters: u32, sides: &[Option<Value>; 3], of_base: f64) {
    let [ours, peft, llama] = sides;
    let cell = |side: &Option<Value>, field: &str, digits: usize| {
        side.as_ref().map_or_else(String::new, |side| {
            format!("{:.digits$}", side[field].as_f64().unwrap_or(f64::NAN))
        })
    };
    let ratio = |side: &Option<Value>| {
        let rate = number(ours.as_ref(), RATE);
        side.as_ref()
            .map_or_else(String::new, |_| format!("{:.2}", rate / number(side.as_ref(), RATE)))
    };
    println!(
        "| {concurrent} | {adapters} | {} | {of_base:.2} | {} | {} | {} | {} | {} | {} | {} |",
        cell(ours, RATE, 1),
        cell(peft, RATE, 1),
        ratio(peft),
        cell(llama, RATE, 1),
        ratio(llama),
        cell(ours, FIRST, 2),
        cell(peft, FIRST, 2),
        cell(llama, FIRST, 2),
    );
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many processes wanted a core in the last minute, where the system tells.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn build() -> Result<PathBuf> {
    let what = ["build", "--release", "--package", "serve", "--example", "bench_serve"];
    shell::run(shell::cargo().args(what))?;
    Ok(shell::target_dir().join("release").join("examples").join("bench_serve"))
}

/// SmolLM2 as a Hugging Face folder, which both sides read.
pub(super) fn converted(python: &Path) -> Result<PathBuf> {
    let folder = shell::cache()?.join("models").join("smollm2-hf");
    if !folder.join("model.safetensors").is_file() {
        let script = shell::workspace().join(peer::SCRIPTS).join("convert_gguf.py");
        // A conversion that is cut off is none.
        let new = folder.with_extension("new");
        shell::run(Command::new(python).arg(script).arg(setup::base_model()?).arg(&new))?;
        std::fs::rename(&new, &folder).context("cannot put the converted model in its place")?;
    }
    Ok(folder)
}

/// Runs one side and reads its last line.
fn report(mut command: Command) -> Result<Value> {
    let output = shell::output(&mut command)?;
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("`{line}` is no report"))
}

fn number(report: Option<&Value>, field: &str) -> f64 {
    report.and_then(|report| report[field].as_f64()).unwrap_or(f64::NAN)
}
