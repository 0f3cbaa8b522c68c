//! `cargo xtask bench sft`: Anneal and its peer (transformers, PEFT and TRL) train the same model on the
//! same rows, in turns, each in a process of its own.
//!
//! Both sides print one JSON object as their last line; `tests/numerics/scripts/peer_sft.py` says what
//! it holds. They take turns as A B A B, so that a machine that slows down slows both.

mod job;
pub(super) mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{peer, shell};

/// What is compared.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sft {
    /// Shape of the model, with random weights
    #[arg(long, value_enum, default_value_t = Shape::Llama100m)]
    shape: Shape,
    /// A model folder of your own instead, with a tokenizer
    #[arg(long, requires = "rows")]
    model: Option<PathBuf>,
    /// Its rows: JSON lines with a `text` each
    #[arg(long)]
    rows: Option<PathBuf>,
    /// Lengths of the rows that are made: all 512 tokens, lognormal as of chats, or all 4,096
    #[arg(long, value_enum, default_value_t = Lengths::Equal)]
    lengths: Lengths,
    /// Number format of frozen weights
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    precision: Precision,
    /// Optimizer steps of each run
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// First steps that are not timed
    #[arg(long, default_value_t = 1)]
    warm_steps: usize,
    /// Rows in a step
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Rank of the adapter
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// CPU threads of each side; by default all that this machine has
    #[arg(long)]
    threads: Option<usize>,
    /// Runs of each side
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Compute activations again in the backward pass, on both sides
    #[arg(long)]
    checkpointing: bool,
    /// Let the peer pack short rows
    #[arg(long)]
    packing: bool,
    /// Let the peer run as TRL does by default: fp32 weights, bf16 by autocast, activations made again
    #[arg(long)]
    peer_defaults: bool,
}

/// The reports of both sides, round by round.
struct Comparison {
    ours: Vec<Value>,
    theirs: Vec<Value>,
}

impl Default for Sft {
    fn default() -> Self {
        Self {
            shape: Shape::Llama100m,
            model: None,
            rows: None,
            lengths: Lengths::Equal,
            precision: Precision::Fp32,
            steps: 4,
            warm_steps: 1,
            batch_size: 4,
            rank: 16,
            threads: None,
            rounds: 2,
            checkpointing: false,
            packing: false,
            peer_defaults: false,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    Llama100m,
    Gemma270m,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lengths {
    Equal,
    Ragged,
    Long,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Precision {
    Fp32,
    Bf16,
}

/// A number that both sides report.
struct Measure {
    field: &'static str,
    title: &'static str,
    /// Whether more is better.
    more: bool,
}

const MEASURES: [Measure; 5] = [
    Measure { field: "tokens_per_second", title: "useful tokens/s", more: true },
    Measure { field: "tokens_per_cpu_second", title: "useful tokens/CPU s", more: true },
    Measure { field: "peak_rss_mb", title: "peak memory, MB", more: false },
    Measure { field: "memory_over_weights_mb", title: "over loaded weights, MB", more: false },
    Measure { field: "start_to_first_step_s", title: "start to first step, s", more: false },
];

/// Relative difference of the losses of a step that is put down to rounding.
const SAME_LOSS_FP32: f64 = 1e-4;
const SAME_LOSS_BF16: f64 = 1e-2;

impl Sft {
    pub(super) fn run(&self) -> Result<()> {
        let Comparison { ours, theirs } = self.compare()?;
        print_table(&ours, &theirs);
        Ok(())
    }

    /// Runs both sides in turns, which must lose the same at each step.
    fn compare(&self) -> Result<Comparison> {
        let folder = shell::cache()?.join("bench");
        let python = shell::stage("the peer's Python packages (4.5 GB)", peer::python)?;
        let anneal = shell::stage("Anneal's side", build)?;
        let (model, rows) = shell::stage("model and rows", || self.inputs(&python, &folder))?;
        let (order, start) = (folder.join("order.json"), folder.join("start"));
        shell::output(
            Command::new(&anneal).arg("--rows").arg(&rows).arg("--write-order").arg(&order),
        )?;
        let mut command = Command::new(&anneal);
        self.common(&mut command, &model, &rows, &start);
        shell::output(command.args(["--write-start", "true"]))?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            println!("==> round {round} of {}", self.rounds);
            let mut command = Command::new(&anneal);
            self.common(&mut command, &model, &rows, &folder.join("anneal"));
            if self.checkpointing {
                command.args(["--checkpointing", "true"]);
            }
            ours.push(report("anneal", &mut command)?);
            let mut command = Command::new(&python);
            command.arg(script("peer_sft.py")).arg("--order").arg(&order);
            command.arg("--start").arg(start.join("adapter"));
            self.common(&mut command, &model, &rows, &folder.join("peer"));
            let again = self.checkpointing || self.peer_defaults;
            let flags = [("--checkpointing", again), ("--packing", self.packing)];
            command.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
            if self.peer_defaults {
                command.args(["--precision", "autocast"]);
            }
            theirs.push(report("peer", &mut command)?);
        }
        self.same_work(&ours[0], &theirs[0])?;
        Ok(Comparison { ours, theirs })
    }

    /// What both sides are told.
    fn common(&self, command: &mut Command, model: &Path, rows: &Path, out: &Path) {
        let threads = self.threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
        });
        let numbers = [
            ("--steps", self.steps),
            ("--warm-steps", self.warm_steps),
            ("--batch-size", self.batch_size),
            ("--rank", self.rank),
            ("--threads", threads),
            ("--max-length", if matches!(self.lengths, Lengths::Long) { 4096 } else { 512 }),
        ];
        command.arg("--model").arg(model).arg("--rows").arg(rows).arg("--out").arg(out);
        for (name, value) in numbers {
            command.arg(name).arg(value.to_string());
        }
        command.arg("--precision").arg(name_of(&self.precision));
        command.env("OMP_WAIT_POLICY", "PASSIVE");
    }

    /// The folder of the model and the file of the rows, made where they are not there.
    fn inputs(&self, python: &Path, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        if let (Some(model), Some(rows)) = (&self.model, &self.rows) {
            return Ok((model.clone(), rows.clone()));
        }
        let (shape, lengths) = (name_of(&self.shape), name_of(&self.lengths));
        let model = folder.join(&shape);
        let rows = self.steps * self.batch_size;
        let mut command = Command::new(python);
        command.arg(script("make_bench_inputs.py")).arg(&shape).arg(&model);
        command.args(["--rows", &rows.to_string(), "--lengths", &lengths]);
        shell::output(&mut command)?;
        Ok((model.clone(), model.join(format!("rows-{lengths}.jsonl"))))
    }

    /// Fails where the two sides did not train on the same tokens from the same start.
    fn same_work(&self, ours: &Value, theirs: &Value) -> Result<()> {
        if self.packing {
            return Ok(());
        }
        let (a, b) = (&ours["tokens"], &theirs["tokens"]);
        ensure!(a == b, "the sides saw {a} and {b} tokens in their steps");
        let most = match self.precision {
            Precision::Fp32 => SAME_LOSS_FP32,
            Precision::Bf16 => SAME_LOSS_BF16,
        };
        let difference = loss_difference(ours, theirs);
        let (ours, theirs) = (&ours["losses"], &theirs["losses"]);
        ensure!(difference < most, "the losses differ by {difference:.1e}: {ours} and {theirs}");
        println!("    losses of a step differ by {difference:.1e} at most");
        Ok(())
    }
}

/// Largest relative difference between the losses of a step.
fn loss_difference(ours: &Value, theirs: &Value) -> f64 {
    let losses = |side: &Value| -> Vec<f64> {
        side["losses"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let (ours, theirs) = (losses(ours), losses(theirs));
    if ours.is_empty() || ours.len() != theirs.len() {
        return f64::NAN;
    }
    ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max)
}

fn build() -> Result<PathBuf> {
    // With the program's package, so that dependencies have the features that they are built with already.
    let packages = ["--package", "cli", "--package", "tests-numerics"];
    let what = ["build", "--release", "--example", "bench_sft"];
    shell::run(shell::cargo().args(what).args(packages))?;
    Ok(shell::target_dir().join("release").join("examples").join("bench_sft"))
}

fn script(name: &str) -> PathBuf {
    shell::workspace().join(peer::SCRIPTS).join(name)
}

/// Runs one side and reads its last line.
fn report(side: &str, command: &mut Command) -> Result<Value> {
    let output = shell::output(command)?;
    let line = output.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(line)
        .with_context(|| format!("{side} ended with `{line}`, which is no report"))?;
    let shown = MEASURES.iter().map(|m| format!("{:.1} {}", number(&report, m.field), m.title));
    println!("    {side}: {}", shown.collect::<Vec<_>>().join(", "));
    Ok(report)
}

fn print_table(ours: &[Value], theirs: &[Value]) {
    println!("\n{:<24}{:>12}{:>12}{:>12}", "median", "Anneal", "peer", "better by");
    for measure in MEASURES {
        let (a, b) = (median(ours, measure.field), median(theirs, measure.field));
        let ratio = if measure.more { a / b } else { b / a };
        println!("{:<24}{a:>12.1}{b:>12.1}{ratio:>11.2}x", measure.title);
    }
}

fn median(reports: &[Value], field: &str) -> f64 {
    let mut values: Vec<f64> = reports.iter().map(|report| number(report, field)).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

fn number(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or(f64::NAN)
}

/// The word by which an option's value is given.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
