//! What the end-to-end tests share: a project in a folder of its own, and the `anneal` program as a
//! user starts it.

pub mod pod;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a tiny model, data and a workspace, in which `anneal` is started.
#[derive(Debug)]
pub struct Project {
    folder: TempDir,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Twelve steps with a checkpoint after each second one.
pub const WORKSPACE: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata:
  name: tiny
spec:
  baseModel:
    path: model
  data:
    train:
      path: train.jsonl
    validation:
      path: validation.jsonl
    test:
      path: test.jsonl
    labels: [red, blue]
  adapter:
    lora:
      rank: 4
      dropout: 0.1
  hyperparameters:
    maxSteps: 12
    batchSize: 4
    learningRate: 0.01
    precision: FP32
  evaluation:
    everySteps: 6
    maxNewTokens: 4
  checkpoints:
    everySteps: 2
";

impl Project {
    /// Model, data and `tune.yaml`.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for a project")?;
        testkit::tiny_model::write(&folder.path().join("model"), 1)?;
        let project = Self { folder };
        project.write("train.jsonl", &examples(0..32))?;
        project.write("validation.jsonl", &examples(32..40))?;
        project.write("test.jsonl", &examples(40..48))?;
        project.write("tune.yaml", WORKSPACE)?;
        Ok(project)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes `tune.yaml` with one text replaced by another.
    pub fn edit(&self, from: &str, to: &str) -> Result<()> {
        ensure!(WORKSPACE.contains(from), "the workspace has no `{from}`");
        self.write("tune.yaml", &WORKSPACE.replace(from, to))
    }

    /// `anneal`, in the project's folder, with nothing of this machine's user.
    pub fn anneal(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        self.set_up(&mut command);
        command.args(arguments);
        command
    }

    /// Folder and environment for a command that starts `anneal`.
    pub fn set_up(&self, command: &mut Command) {
        command.current_dir(self.path()).stdin(Stdio::null());
        command.env("ANNEAL_CACHE", self.path().join("cache"));
        command.env("HF_HOME", self.path().join("hub"));
        command.env("DOCKER_CONFIG", self.path().join("docker"));
        for name in ["HF_TOKEN", "HF_ENDPOINT", "SSL_CERT_FILE", "ANNEAL_CA_FILE", "COLUMNS"] {
            command.env_remove(name);
        }
    }

    /// Runs `anneal` to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        Ran::of(&mut self.anneal(arguments))
    }

    /// `anneal run` with every event, which must succeed.
    pub fn train(&self) -> Result<Vec<Value>> {
        let ran = self.run(&["run", "-f", "tune.yaml", "-o", "json"])?;
        ensure!(ran.code == 0, "{}", ran.stderr);
        events(&ran.stdout)
    }
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let Output { status, stdout, stderr } = command
            .output()
            .context("cannot start anneal: `cargo build --release -p cli` first")?;
        Ok(Self {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout)?,
            stderr: String::from_utf8(stderr)?,
        })
    }
}

/// The program that `cargo build --release -p cli` makes, beside the tests' own folder.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(&own).join("anneal")
}

/// Events of a run with `--output json`.
pub fn events(text: &str) -> Result<Vec<Value>> {
    let parse =
        |line: &str| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
    text.lines().map(parse).collect()
}

/// The events of one kind.
pub fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// Chat examples in which the answer depends on the question.
pub fn examples(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| {
            let color = if number % 2 == 0 { "red" } else { "blue" };
            let question = format!("{number}: apple or sky? {}", "x".repeat(number % 7));
            let messages = json!([
                {"role": "user", "content": question},
                {"role": "assistant", "content": color},
            ]);
            format!("{}\n", json!({ "messages": messages }))
        })
        .collect()
}
