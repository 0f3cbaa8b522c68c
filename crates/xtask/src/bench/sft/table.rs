//! `cargo xtask bench table`: all workloads of the training benchmark, one after another, into a JSON file, and
//! the table of `docs/benchmarks.md` out of that file.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::{Comparison, Lengths, Precision, Sft, Shape, job, loss_difference, median, number};
use crate::shell;

/// Where the table stands in the document.
const BEGIN: &str = "<!-- table: cargo xtask bench table -->";
const END: &str = "<!-- end of table -->";

/// What is measured, and where it is written.
#[derive(Debug, Args)]
pub(crate) struct Table {
    /// Runs of each side for each workload
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Optimizer steps of each run, the first of which is not timed
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Only workloads whose name holds this text
    #[arg(long)]
    only: Option<String>,
    /// Measure nothing, and write the table from the file that is there
    #[arg(long)]
    render: bool,
}

/// The small job has settings of its own.
enum Workload {
    Sft(Sft),
    Job,
}

impl Table {
    pub(crate) fn run(&self) -> Result<()> {
        let docs = shell::workspace().join("docs");
        let file = docs.join("benchmarks-sft.json");
        let mut report = read(&file)?;
        if !self.render {
            report["machine"] = json!(machine()?);
            for (name, workload) in self.workloads() {
                if self.only.as_ref().is_some_and(|only| !name.contains(only)) {
                    continue;
                }
                println!("==> {name}");
                let comparison = match &workload {
                    Workload::Sft(sft) => sft.compare()?,
                    Workload::Job => job::compare(self.rounds)?,
                };
                report["workloads"][name] = summary(&comparison);
                // After each, so that what was measured is kept.
                let text = serde_json::to_string_pretty(&report)? + "\n";
                std::fs::write(&file, text).context("cannot write the measurements")?;
            }
        }
        let table = markdown(&report);
        println!("{table}");
        put(&docs.join("benchmarks.md"), (BEGIN, END), &table)
    }

    fn workloads(&self) -> Vec<(&'static str, Workload)> {
        let base = Sft { rounds: self.rounds, steps: self.steps, ..Sft::default() };
        let bf16 = Sft { precision: Precision::Bf16, ..base.clone() };
        let ragged = Sft { lengths: Lengths::Ragged, ..bf16.clone() };
        let gemma = |sft: &Sft| Sft { shape: Shape::Gemma270m, ..sft.clone() };
        let long = |sft: &Sft| Sft { lengths: Lengths::Long, batch_size: 1, ..sft.clone() };
        let sfts = [
            ("llama100m, 4 x 512, fp32", base.clone()),
            ("llama100m, 4 x 512, bf16", bf16.clone()),
            (
                "llama100m, 4 x 512, bf16, peer by its defaults",
                Sft { peer_defaults: true, ..bf16.clone() },
            ),
            ("llama100m, ragged, bf16, peer padded", ragged.clone()),
            ("llama100m, ragged, bf16, peer packing", Sft { packing: true, ..ragged }),
            ("llama100m, 1 x 4096, fp32", long(&base)),
            ("llama100m, 1 x 4096, bf16", long(&bf16)),
            ("gemma270m, 4 x 512, fp32", gemma(&base)),
            ("gemma270m, 4 x 512, bf16", gemma(&bf16)),
        ];
        let jobs = std::iter::once(("SmolLM2-135M, 20 chats, start to adapter", Workload::Job));
        jobs.chain(sfts.map(|(name, sft)| (name, Workload::Sft(sft)))).collect()
    }
}

fn read(file: &Path) -> Result<Value> {
    if !file.exists() {
        return Ok(json!({"workloads": {}}));
    }
    let text = std::fs::read_to_string(file).context("cannot read the measurements")?;
    serde_json::from_str(&text).context("the measurements are not JSON")
}

/// The processor and how many of it.
pub(in crate::bench) fn machine() -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").context("cannot look at the processor")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Ok(format!("{count} cores, {}", model.map_or("unknown", |(_, name)| name)))
}

/// Both sides of each measure, and the ratio of each round.
fn summary(comparison: &Comparison) -> Value {
    let Comparison { ours, theirs } = comparison;
    let fields = [
        ("tokens_per_second", true),
        ("tokens_per_cpu_second", true),
        ("peak_rss_mb", false),
        ("memory_over_weights_mb", false),
        ("start_to_first_step_s", false),
        ("job_s", false),
    ];
    let mut found = json!({"rounds": ours.len()});
    for (field, more) in fields {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(a, b)| (number(a, field), number(b, field)))
            .map(|(a, b)| if more { a / b } else { b / a })
            .collect();
        if ratios.iter().all(|ratio| ratio.is_finite()) {
            let values =
                |side: &[Value]| side.iter().map(|one| number(one, field)).collect::<Vec<_>>();
            found[field] = json!({
                "ours": median(ours, field), "peer": median(theirs, field),
                "all": {"ours": values(ours), "peer": values(theirs)}, "better": ratios,
            });
        }
    }
    let (speed, peak) = (median(ours, "tokens_per_second"), median(ours, "gemm_peak_flops"));
    let share = speed * median(ours, "flops_per_token") / peak;
    if share.is_finite() {
        found["share_of_gemm_peak"] = json!(share);
    }
    let difference = loss_difference(&ours[0], &theirs[0]);
    if difference.is_finite() {
        found["largest_loss_difference"] = json!(difference);
    }
    found
}

fn markdown(report: &Value) -> String {
    let mut table = format!("Measured on {}.\n\n", report["machine"].as_str().unwrap_or("nothing"));
    table += "| workload | tokens/s: Anneal, peer | speed | peak MB: Anneal, peer | memory | over weights | \
              start to first step | share of GEMM peak | losses differ by |\n";
    table += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let workloads = report["workloads"].as_object();
    for (name, one) in workloads.into_iter().flatten() {
        let pair = |field: &str, digits: usize| match &one[field] {
            Value::Null => "-".to_owned(),
            found => {
                format!("{:.digits$}, {:.digits$}", number(found, "ours"), number(found, "peer"))
            }
        };
        let percent =
            one["share_of_gemm_peak"].as_f64().map(|share| format!("{:.0} %", 100.0 * share));
        let losses = one["largest_loss_difference"].as_f64().map(|most| format!("{most:.0e}"));
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {} | {} s | {} | {} |",
            pair("tokens_per_second", 0),
            better(&one["tokens_per_second"]),
            pair("peak_rss_mb", 0),
            better(&one["peak_rss_mb"]),
            better(&one["memory_over_weights_mb"]),
            pair("start_to_first_step_s", 1),
            percent.unwrap_or_else(|| "-".to_owned()),
            losses.unwrap_or_else(|| "-".to_owned()),
        );
        if !one["job_s"].is_null() {
            let _ = writeln!(
                table,
                "| the same, start to adapter | {} s | {} | | | | | | |",
                pair("job_s", 1),
                better(&one["job_s"])
            );
        }
    }
    table
}

/// The median ratio of the rounds, and the least and the largest.
fn better(measure: &Value) -> String {
    let ratios = measure["better"].as_array().into_iter().flatten();
    let mut ratios: Vec<f64> = ratios.filter_map(Value::as_f64).collect();
    ratios.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (ratios.first(), ratios.last()) else { return "-".to_owned() };
    let middle = f64::midpoint(ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
    format!("{middle:.2}x ({least:.2} to {most:.2})")
}

/// Puts a table into its place in the page, between two lines.
pub(in crate::bench) fn put(page: &Path, (begin, end): (&str, &str), table: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).context("cannot read docs/benchmarks.md")?;
    let (before, rest) = text.split_once(begin).context("the page has no place for the table")?;
    let (_, after) = rest.split_once(end).context("the place of the table has no end")?;
    std::fs::write(page, format!("{before}{begin}\n\n{table}\n{end}{after}"))
        .context("cannot write docs/benchmarks.md")
}
