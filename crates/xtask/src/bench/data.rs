//! `cargo xtask bench data`: how fast data are read, and what that takes, with few rows and with many.
//!
//! Rows are conversations made of the quickstart's review snippets, the same ones each time. `anneal validate`
//! reads them without and with the tokens of an earlier reading, and `tests/numerics/examples/bench_data.rs`
//! then deals out one epoch of batches.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::sft::table::{machine, put};
use crate::{setup, shell};

/// Where the figures stand in the document.
const BEGIN: &str = "<!-- figures: cargo xtask bench data -->";
const END: &str = "<!-- end of data figures -->";
const MEGA: f64 = 1e6;

/// How much is read.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// Rows of each file that is read
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    rows: Vec<usize>,
    /// Put the figures into docs/benchmarks.md and docs/benchmarks-data.json
    #[arg(long)]
    write: bool,
}

/// One program that was run to its end.
struct Ran {
    seconds: f64,
    peak: u64,
    stdout: String,
    stderr: String,
}

impl Data {
    pub(super) fn run(&self) -> Result<()> {
        let programs = shell::stage("release build", build)?;
        let mut report = json!({"machine": machine()?, "rows": []});
        for rows in &self.rows {
            let folder = shell::cache()?.join("bench").join(format!("data-{rows}"));
            let measured = shell::stage(&format!("{rows} rows"), || {
                let _ = fs::remove_dir_all(&folder);
                measure(&programs, *rows, &folder)
            });
            let _ = fs::remove_dir_all(&folder);
            report["rows"].as_array_mut().context("a list")?.push(measured?);
        }
        let table = markdown(&report);
        println!("{table}");
        if self.write {
            let docs = shell::workspace().join("docs");
            let text = serde_json::to_string_pretty(&report)? + "\n";
            fs::write(docs.join("benchmarks-data.json"), text)?;
            put(&docs.join("benchmarks.md"), (BEGIN, END), &table)?;
        }
        Ok(())
    }
}

/// `anneal`, and what deals out an epoch.
fn build() -> Result<[PathBuf; 2]> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "cli"]))?;
    let what = ["build", "--release", "--package", "tests-numerics", "--example", "bench_data"];
    shell::run(shell::cargo().args(what))?;
    let folder = shell::target_dir().join("release");
    Ok([folder.join("anneal"), folder.join("examples").join("bench_data")])
}

fn measure([anneal, deal]: &[PathBuf; 2], rows: usize, folder: &Path) -> Result<Value> {
    fs::create_dir_all(folder)?;
    let (data, cache) = (folder.join("train.jsonl"), folder.join("cache"));
    write_rows(&setup::reviews()?, rows, &data)?;
    let model = setup::base_model()?;
    let workspace = format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: bench}}\nspec:\n  \
         baseModel: {{path: {}}}\n  data: {{train: {{path: {}}}}}\n",
        model.display(),
        data.display(),
    );
    fs::write(folder.join("tune.yaml"), workspace)?;
    let validate = || {
        let mut command = Command::new(anneal);
        command.args(["validate", "-f", "tune.yaml"]).current_dir(folder);
        watched(command.env("ANNEAL_CACHE", &cache))
    };
    let (first, second) = (validate()?, validate()?);
    for (ran, kept) in [(&first, false), (&second, true)] {
        ensure!(ran.stderr.contains("from the cache") == kept, "{}", ran.stderr);
    }
    // Its program is another one, and so are the tokens that it keeps: the second time they are there.
    let deal_out = || watched(Command::new(deal).args([&model, &data, &cache.join("deal")]));
    deal_out()?;
    let dealt = deal_out()?;
    let epoch: Value = serde_json::from_str(dealt.stdout.trim()).context("no report")?;
    ensure!(epoch["fromCache"] == true, "the epoch was dealt out of a new reading: {epoch}");
    let pass = |ran: &Ran| json!({"seconds": ran.seconds, "peak": ran.peak});
    Ok(json!({
        "rows": rows,
        "bytes": fs::metadata(&data)?.len(),
        "first": pass(&first),
        "second": pass(&second),
        "epoch": {"seconds": epoch["epochSeconds"], "peak": dealt.peak, "tokens": epoch["tokens"]},
    }))
}

/// Conversations of one question and one answer, each of some snippets that a hash chooses.
fn write_rows(reviews: &Path, rows: usize, to: &Path) -> Result<()> {
    let bytes =
        fs::read(reviews).context("no review snippets: `cargo xtask setup` fetches them")?;
    let text = String::from_utf8_lossy(&bytes);
    let snippets: Vec<&str> =
        text.lines().filter_map(|line| line.splitn(3, '\t').nth(2)).map(str::trim).collect();
    ensure!(!snippets.is_empty(), "there are no review snippets");
    let mut file = BufWriter::new(File::create(to)?);
    for row in 0..rows {
        let hash = Sha256::digest(format!("anneal-bench-data/{row}"));
        let mut numbers = hash
            .chunks(4)
            .map(|part| part.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)));
        let counts = numbers.next().unwrap_or_default();
        let mut some = |count: usize| -> String {
            let chosen = numbers.by_ref().take(count);
            chosen.map(|number| snippets[number % snippets.len()]).collect::<Vec<_>>().join(" ")
        };
        let messages = json!([
            {"role": "user", "content": format!("Review {row}: {}", some(1 + counts % 4))},
            {"role": "assistant", "content": some(1 + counts / 4 % 2)},
        ]);
        writeln!(file, "{}", json!({ "messages": messages }))?;
    }
    file.flush()?;
    Ok(())
}

/// Runs a program to its end and looks at its memory meanwhile.
fn watched(command: &mut Command) -> Result<Ran> {
    let start = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    // Its output is a few lines, which a pipe holds.
    while child.try_wait()?.is_none() {
        peak = peak.max(peak_of(&status).unwrap_or(0));
        thread::sleep(Duration::from_millis(5));
    }
    let seconds = start.elapsed().as_secs_f64();
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if !output.status.success() {
        bail!("`{}` failed: {stderr}", command.get_program().display());
    }
    Ok(Ran { seconds, peak, stdout, stderr })
}

/// The largest resident set so far, in bytes.
fn peak_of(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn markdown(report: &Value) -> String {
    let machine = report["machine"].as_str().unwrap_or("nothing");
    let mut table = format!("Measured on {machine}.\n\n");
    table += "| rows | MB | first `validate`: MB/s, peak MB | second: MB/s, peak MB | epoch dealt out: MB/s, peak MB |\n";
    table += "| --- | --- | --- | --- | --- |\n";
    for one in report["rows"].as_array().into_iter().flatten() {
        let megabytes = one["bytes"].as_f64().unwrap_or(f64::NAN) / MEGA;
        let pass = |name: &str| {
            let number = |field: &str| one[name][field].as_f64().unwrap_or(f64::NAN);
            format!("{:.0}, {:.0}", megabytes / number("seconds"), number("peak") / MEGA)
        };
        let (first, second, epoch) = (pass("first"), pass("second"), pass("epoch"));
        let _ =
            writeln!(table, "| {} | {megabytes:.0} | {first} | {second} | {epoch} |", one["rows"]);
    }
    table
}
