//! `cargo xtask bench operator`: what the operator takes with many workspaces, on a real API server.
//!
//! `tests/cluster/examples/bench_operator.rs` measures; this builds it, shows the figures beside what is
//! asked of them, keeps them as JSON in the cache, and with `--write` puts them into the docs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::shell;

/// The figures stand between these two lines of the document.
const BEGIN: &str = "<!-- figures: cargo xtask bench operator --write -->";
const END: &str = "<!-- end of figures -->";
const MEBI: f64 = 1_048_576.0;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    /// Workspaces in the cluster, of which one in ten runs
    #[arg(long, default_value_t = 1000)]
    workspaces: usize,
    /// Put the figures into docs/benchmarks-operator.md
    #[arg(long)]
    write: bool,
}

/// A figure, and the bound that it has to keep.
struct Figure {
    title: &'static str,
    value: f64,
    unit: &'static str,
    below: Option<f64>,
}

impl Operator {
    pub(super) fn run(&self) -> Result<()> {
        let program = shell::stage("operator and measurement", build)?;
        let report = shell::stage("measurement (about ten minutes)", || self.measure(&program))?;
        let folder = shell::cache()?.join("bench");
        fs::create_dir_all(&folder)?;
        let kept = folder.join("operator.json");
        fs::write(&kept, serde_json::to_string_pretty(&report)?)?;
        let figures = figures(&report);
        let table = table(&figures) + &requests(&report);
        println!("{table}\nall of it: {}", kept.display());
        if self.write {
            write(&table)?;
        }
        let missed: Vec<&str> = figures
            .iter()
            .filter(|figure| figure.below.is_some_and(|below| figure.value > below))
            .map(|figure| figure.title)
            .collect();
        ensure!(missed.is_empty(), "not within bounds: {}", missed.join(", "));
        Ok(())
    }

    fn measure(&self, program: &PathBuf) -> Result<Value> {
        let output = Command::new(program)
            .arg(self.workspaces.to_string())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start the measurement")?;
        if !output.status.success() {
            bail!("the measurement failed with {}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("`{line}` is no report"))
    }
}

fn build() -> Result<PathBuf> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "operator"]))?;
    let what = ["build", "--release", "--package", "tests-cluster", "--example", "bench_operator"];
    shell::run(shell::cargo().args(what))?;
    Ok(shell::target_dir().join("release").join("examples").join("bench_operator"))
}

fn figures(report: &Value) -> Vec<Figure> {
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let figure = |title, value, unit, below| Figure { title, value, unit, below };
    let mebi = |title, path, below| figure(title, number(path) / MEBI, "MiB", below);
    let seconds = |title, path, below| figure(title, number(path), "s", below);
    let minutes = number("/steady/seconds") / 60.0;
    vec![
        mebi("memory, no workspace", "/idle/resident", None),
        mebi("memory at rest", "/steady/memory/resident", Some(64.0)),
        mebi("of this, not backed by files", "/steady/memory/anonymous", None),
        mebi("most memory, while they were made", "/loaded/peak", Some(64.0)),
        mebi("most memory, restarted with them there", "/restart/memory/peak", Some(64.0)),
        figure(
            "writes a minute at rest, but for the Lease",
            number("/steady/writesBesideLeases") / minutes,
            "",
            Some(0.0),
        ),
        figure(
            "writes a minute at rest, with the Lease",
            number("/steady/writes") / minutes,
            "",
            None,
        ),
        figure("processor at rest", number("/steady/cpuMillicores"), "millicores", None),
        seconds("change of a spec to change of its Job, p50", "/change/p50", None),
        seconds("the same, p99", "/change/p99", Some(1.0)),
        seconds("new workspace to its first Job, p50", "/firstJob/p50", None),
        seconds("the same, most of 30", "/firstJob/most", None),
        seconds("start to synced", "/restart/readySeconds", Some(5.0)),
        seconds("start to every workspace looked at", "/restart/passesSeconds", None),
        figure("writes after a restart", number("/restart/writesBesideLeases"), "", Some(0.0)),
        seconds("all made at once: until all stood", "/loadSeconds", None),
    ]
}

fn table(figures: &[Figure]) -> String {
    let mut text = "| figure | measured | bound |\n| --- | --- | --- |\n".to_owned();
    for Figure { title, value, unit, below } in figures {
        let digits = if *unit == "s" { 2 } else { 1 };
        let bound = below.map(|below| format!("{below} {unit}")).unwrap_or_default();
        text += &format!("| {title} | {value:.digits$} {unit} | {bound} |\n").replace("  |", " |");
    }
    text
}

/// Requests of one life by verb, what they are about behind each.
fn requests(report: &Value) -> String {
    let lives = report["lives"].as_f64().unwrap_or(f64::NAN);
    let mut text = "\n| request of one life | count |\n| --- | --- |\n".to_owned();
    let mut all = 0.0;
    for (name, count) in report["lifeRequests"].as_object().into_iter().flatten() {
        let count = count.as_f64().unwrap_or(f64::NAN) / lives;
        all += count;
        text += &format!("| {name} | {count:.1} |\n");
    }
    text + &format!("| all | {all:.1} |\n")
}

/// Puts the tables into the document.
fn write(tables: &str) -> Result<()> {
    let path = shell::workspace().join("docs").join("benchmarks-operator.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (head, rest) = text.split_once(BEGIN).with_context(|| format!("no `{BEGIN}`"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("no `{END}`"))?;
    fs::write(&path, format!("{head}{BEGIN}\n{tables}\n{END}{tail}"))?;
    Ok(())
}
