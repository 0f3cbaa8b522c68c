//! A tiny model, a task that it can learn, and runs over them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use api::RunSpec;
use serde_json::{Value, json};
use train::event::{self, Event, Step};
use train::{Outcome, RunError};

/// A folder with a tiny model and its data; runs write below it.
pub(crate) struct Workbench {
    folder: tempfile::TempDir,
}

const CLASSES: [(&str, &str); 3] = [("sun", "hot"), ("ice", "cold"), ("tea", "warm")];

impl Workbench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        testkit::tiny_model::write(&folder.path().join("model"), 7).unwrap();
        let data = |count: usize, salt: usize| -> String {
            let line = |index: usize| {
                let (word, label) = CLASSES[index % CLASSES.len()];
                let number = index * 7 + salt;
                let prompt = format!("{number} {word} is ");
                json!({"prompt": prompt, "completion": label}).to_string()
            };
            (0..count).map(line).collect::<Vec<_>>().join("\n")
        };
        std::fs::write(folder.path().join("train.jsonl"), data(48, 0)).unwrap();
        std::fs::write(folder.path().join("validation.jsonl"), data(9, 3)).unwrap();
        std::fs::write(folder.path().join("test.jsonl"), data(6, 5)).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path().join("run")
    }

    /// A short run, with `changes` merged into the specification.
    pub(crate) fn spec(&self, changes: &Value) -> RunSpec {
        let mut spec = json!({
            "version": api::run_spec::RUN_SPEC_VERSION,
            "name": "tiny",
            "revision": "0123456789ab",
            "baseModel": {
                "path": self.path().join("model"), "reference": "tiny", "digest": null,
            },
            "data": {
                "train": [self.path().join("train.jsonl")],
                "validation": {"files": [self.path().join("validation.jsonl")]},
                "test": {"files": [self.path().join("test.jsonl")]},
                "format": "Completion",
                "maxSequenceLength": 64,
                "overlong": "Fault",
                "duplicates": "Drop",
            },
            "method": "sft",
            "adapter": {"lora": {
                "rank": 8, "alpha": 16.0, "dropout": 0.1, "targetModules": ["all-linear"],
                "excludeModules": [], "rslora": false, "bias": "None", "modulesToSave": [],
            }},
            "training": {
                "steps": 12, "epochs": 2.0, "batchSize": 8, "microBatchTokens": 64,
                "learningRate": 0.02, "schedule": "Cosine", "warmupSteps": 2,
                "weightDecay": 0.01, "adamBeta1": 0.9, "adamBeta2": 0.999, "adamEpsilon": 1e-8,
                "maxGradNorm": 1.0, "precision": "FP32", "activationCheckpointing": false,
                "seed": 42,
            },
            "evaluation": {
                "everySteps": 4, "metrics": ["Accuracy", "ExactMatch"], "maxNewTokens": 6,
                "maxExamples": 0, "earlyStopping": null,
            },
            "checkpoints": {"everySteps": 3, "keep": 2},
            "compute": {"device": "CPU", "threads": 2},
            "output": {"dir": self.output()},
        });
        merge(&mut spec, changes);
        serde_json::from_value(spec).unwrap()
    }

    #[expect(clippy::unused_self, reason = "reads as what is run on the bench")]
    pub(crate) fn run(&self, spec: &RunSpec) -> (Result<Outcome, RunError>, Vec<Event>) {
        run_until(spec, |_| false)
    }

    /// All that `events.jsonl` of the run's folder holds.
    pub(crate) fn written(&self) -> Vec<Event> {
        let records = event::read(&self.output().join("events.jsonl")).unwrap();
        records.into_iter().map(|record| record.event).collect()
    }
}

/// Runs, and asks to stop after the first event that `stops` is true for.
pub(crate) fn run_until(
    spec: &RunSpec,
    stops: impl Fn(&Event) -> bool,
) -> (Result<Outcome, RunError>, Vec<Event>) {
    let stop = AtomicBool::new(false);
    let mut events = Vec::new();
    let result = train::run(spec, &stop, &mut |event| {
        events.push(event.clone());
        if stops(event) {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    (result, events)
}

pub(crate) fn steps(events: &[Event]) -> Vec<Step> {
    events
        .iter()
        .filter_map(|event| if let Event::Step(step) = event { Some(*step) } else { None })
        .collect()
}

/// What decides whether two runs are the same: every loss and norm, bit for bit.
pub(crate) fn losses(events: &[Event]) -> Vec<(String, u64, u64, u64)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Step(step) => {
                Some(("step".to_owned(), step.step, step.loss.to_bits(), step.grad_norm.to_bits()))
            }
            Event::Validated { step, loss, token_accuracy, .. } => {
                Some(("validated".to_owned(), *step, loss.to_bits(), token_accuracy.to_bits()))
            }
            _ => None,
        })
        .collect()
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(into.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
        (into, change) => *into = change.clone(),
    }
}
