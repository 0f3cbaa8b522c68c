//! `cargo xtask test`: set-up, then everything that must hold of the code, ending in one line that
//! counts what passed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{deny, setup, shell};

/// Tests that a machine cannot run append a line `name<TAB>reason` to the file named here.
const LEFT_OUT: &str = "ANNEAL_LEFT_OUT";

/// Whether a test that this machine cannot run is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    MayLeaveOut,
    NothingLeftOut,
}

impl Strictness {
    /// Nothing may be left out where `CI=true`.
    pub(crate) fn from_env() -> Self {
        match std::env::var("CI").as_deref() {
            Ok("true") => Self::NothingLeftOut,
            _ => Self::MayLeaveOut,
        }
    }
}

/// What `cargo test` counted, over all its test binaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Set-up, format, lints, licences and tests. The tests run even where a lint fails, so that one run
/// shows all there is to do.
pub(crate) fn run(strictness: Strictness) -> Result<()> {
    setup::run()?;
    let mut problems = Vec::new();
    let mut check = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            println!("    {what}: {error:#}");
            problems.push(what.to_owned());
        }
    };
    check("format", shell::stage("format", format));
    check("lints", shell::stage("lints (clippy, warnings are errors)", lints));
    check("licences", shell::stage("licences, sources and advisories (cargo-deny)", deny::run));
    let left_out_file = shell::target_dir().join("left-out.txt");
    let (counts, all_ran) = shell::stage("tests", || tests(&left_out_file, strictness))?;
    let left_out = left_out(&left_out_file)?;

    println!("==> summary");
    for (test, reason) in &left_out {
        println!("    left out: {test}: {reason}");
    }
    if !left_out.is_empty() && strictness == Strictness::NothingLeftOut {
        problems.push("tests were left out".to_owned());
    }
    if !all_ran {
        problems.push("tests".to_owned());
    }
    if !problems.is_empty() {
        println!("    failed: {}", problems.join(", "));
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if problems.is_empty() { Ok(()) } else { bail!("{} failed", problems.join(", ")) }
}

fn format() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    shell::run(shell::cargo().args([
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Builds the programs that the end-to-end tests start, then runs all tests of all crates.
fn tests(left_out: &Path, strictness: Strictness) -> Result<(Counts, bool)> {
    // All at once, and with the tests: without them dependencies have other features, and would be built twice.
    let what = ["build", "--release", "--workspace", "--bins", "--tests"];
    shell::run(shell::cargo().args(what))?;
    fs::write(left_out, "").with_context(|| format!("cannot write {}", left_out.display()))?;
    let mut command = shell::cargo();
    command.args(["test", "--release", "--workspace", "--no-fail-fast"]);
    command.env(LEFT_OUT, left_out).env("OMP_WAIT_POLICY", "PASSIVE").stdout(Stdio::piped());
    if strictness == Strictness::NothingLeftOut {
        command.env("CI", "true");
    }
    let mut child = command.spawn().context("cannot start `cargo test`")?;
    let output = child.stdout.take().context("its output is piped")?;
    let mut counts = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        counts.add(&line);
    }
    Ok((counts, child.wait()?.success()))
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((count, what)) = part.split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

fn left_out(file: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(file)?;
    let mut rows: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(test, reason)| (test.to_owned(), reason.to_owned()))
        .collect();
    rows.sort();
    rows.dedup();
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_binaries_are_added() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 4, failed: 2, ignored: 1 });
    }
}
