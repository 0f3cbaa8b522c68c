//! A small job from the start of the process to the adapter: 20 chats, by `anneal run` and by the peer.
//!
//! Anneal reads the YAML, validates, plans, trains, and packs the adapter as an OCI image in a layout folder;
//! the peer trains and saves the adapter's files. Both read SmolLM2-135M from the same Hugging Face folder.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Comparison, report, script};
use crate::bench::serve::converted;
use crate::{peer, shell};

const EXAMPLES: usize = 20;

/// Runs both sides `rounds` times, in turns.
pub(super) fn compare(rounds: usize) -> Result<Comparison> {
    let python = shell::stage("the peer's Python packages (4.5 GB)", peer::python)?;
    // With the other workloads' package, so that dependencies keep the features that they are built with.
    let what = ["build", "--release", "--bin", "anneal", "--package", "cli"];
    shell::stage("Anneal", || {
        shell::run(shell::cargo().args(what).args(["--package", "tests-numerics"]))
    })?;
    let model = converted(&python)?;
    let folder = shell::cache()?.join("bench").join("job");
    std::fs::create_dir_all(&folder).context("cannot make the job's folder")?;
    std::fs::write(folder.join("rows.jsonl"), rows()).context("cannot write the job's rows")?;
    std::fs::write(folder.join("job.yaml"), workspace(&model)).context("cannot write the job")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        println!("==> round {round} of {rounds}");
        ours.push(anneal(&folder)?);
        let begun = Instant::now();
        let mut command = Command::new(&python);
        command.arg(script("peer_sft.py")).arg("--save").arg("--model").arg(&model);
        command.arg("--rows").arg(folder.join("rows.jsonl")).arg("--out").arg(folder.join("peer"));
        command.args(["--steps", "5", "--batch-size", "4", "--precision", "bf16"]);
        let mut theirs_now = report("peer", &mut command)?;
        theirs_now["job_s"] = json!(begun.elapsed().as_secs_f64());
        theirs.push(theirs_now);
    }
    Ok(Comparison { ours, theirs })
}

/// One pass in steps of four, as the peer makes it.
fn workspace(model: &Path) -> String {
    format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: job}}\nspec:\n  \
         baseModel: {{path: {}}}\n  data: {{train: {{path: rows.jsonl}}}}\n  hyperparameters: \
         {{epochs: 1, batchSize: 4, precision: BF16}}\n  checkpoints: {{everySteps: 0}}\n",
        model.display()
    )
}

fn rows() -> String {
    let mut rows = String::new();
    for number in 0..EXAMPLES {
        let answer = ["positive", "negative"][number % 2];
        let ask =
            format!("Is review {number} positive or negative? It says: the film is {answer}.");
        let row = json!({"messages": [
            {"role": "user", "content": ask}, {"role": "assistant", "content": answer},
        ]});
        let _ = writeln!(rows, "{row}");
    }
    rows
}

/// One `anneal run` from nothing, timed by the events that it prints.
fn anneal(folder: &Path) -> Result<Value> {
    let old = folder.join(".anneal");
    if old.exists() {
        std::fs::remove_dir_all(&old).context("cannot remove the last job's run")?;
    }
    let begun = Instant::now();
    let program = shell::target_dir().join("release").join("anneal");
    let mut command = Command::new(program);
    command.args(["run", "-f", "job.yaml", "-o", "json"]).current_dir(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start anneal")?;
    let output = child.stdout.take().context("anneal has no output")?;
    let (mut first, mut peak, mut published) = (f64::NAN, f64::NAN, false);
    for line in BufReader::new(output).lines() {
        let event: Value = serde_json::from_str(&line?).context("anneal printed no JSON")?;
        match event["event"].as_str() {
            Some("started") => first = begun.elapsed().as_secs_f64(),
            Some("finished") => peak = event["peakMemory"].as_f64().unwrap_or(f64::NAN) / 1e6,
            Some("published") => published = true,
            _ => {}
        }
    }
    ensure!(child.wait()?.success() && published, "anneal published nothing");
    let all = begun.elapsed().as_secs_f64();
    println!("    anneal: {first:.1} s to the first step, {all:.1} s in all");
    Ok(json!({"job_s": all, "start_to_first_step_s": first, "peak_rss_mb": peak}))
}
