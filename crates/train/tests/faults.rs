//! What goes wrong gives one clear error, and the state before it stays usable.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{Workbench, losses, run_until, steps};
use testkit::left_out::left_out;
use train::event::Event;
use train::{ExitClass, RunError};

/// A file system of its own, of `size`, that is taken away again.
struct Mount(PathBuf);

impl Mount {
    /// None where this machine does not let us: that takes root.
    fn new(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .output()
            .ok()?;
        mount.status.success().then(|| Self(path.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room() {
    let (whole, bench) = (Workbench::new(), Workbench::new());
    // A checkpoint of the tiny model takes about 110 kB: two fit and a third does not.
    let Some(disk) = Mount::new(&bench.output(), "300k") else {
        left_out("a_full_disk_is_one_error", "mounting a small file system takes root");
        return;
    };
    let changes = json!({"checkpoints": {"everySteps": 2, "keep": 5}});
    let mut spec = whole.spec(&changes);
    let (outcome, _) = whole.run(&spec);
    let digest = outcome.unwrap().finished.adapter_digest;

    spec.output.dir = bench.output();
    let (outcome, events) = bench.run(&spec);
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), ExitClass::Io);
    let text = error.to_string();
    assert!(text.starts_with("cannot write `") && text.contains("No space left"), "{text}");
    assert!(error.hint().unwrap().starts_with("free some space"));
    assert!(matches!(events.last(), Some(Event::Failed { class: ExitClass::Io, .. })));

    disk.remount("size=4m");
    let (outcome, events) = bench.run(&spec);
    assert_eq!(outcome.unwrap().finished.adapter_digest, digest);
    assert!(events.iter().any(|event| matches!(event, Event::Resumed { .. })));
    assert_eq!(losses(&bench.written()), losses(&whole.written()));
}

#[test]
fn a_read_only_folder_is_named() {
    let bench = Workbench::new();
    let Some(disk) = Mount::new(&bench.output(), "1m") else {
        left_out("a_read_only_folder_is_named", "mounting a read-only file system takes root");
        return;
    };
    disk.remount("ro");
    let (outcome, _) = bench.run(&bench.spec(&json!({})));
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), ExitClass::Io);
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    assert!(error.hint().unwrap().contains("name another one as the output directory"));
}

#[test]
fn a_truncated_checkpoint_is_skipped_and_the_one_before_it_is_used() {
    let (whole, bench) = (Workbench::new(), Workbench::new());
    let mut spec = whole.spec(&json!({}));
    let (outcome, _) = whole.run(&spec);
    let digest = outcome.unwrap().finished.adapter_digest;

    spec.output.dir = bench.output();
    let (outcome, _) =
        run_until(&spec, |event| matches!(event, Event::Step(step) if step.step == 7));
    assert!(matches!(outcome.unwrap_err(), RunError::Stopped { step: 7, .. }));
    let file = bench.output().join("checkpoints/step-00000007/optimizer.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();

    let (outcome, events) = bench.run(&spec);
    assert_eq!(outcome.unwrap().finished.adapter_digest, digest);
    let warning = events.iter().find_map(|event| match event {
        Event::Warning { message, .. } => Some(message.clone()),
        _ => None,
    });
    let warning = warning.unwrap();
    assert!(warning.contains("step-00000007` cannot be used"), "{warning}");
    assert!(warning.contains("`optimizer.safetensors` has"), "{warning}");
    assert!(events.iter().any(|event| matches!(event, Event::Resumed { step: 6, .. })));
    assert_eq!(losses(&bench.written()), losses(&whole.written()));
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_step_and_keeps_the_last_checkpoint() {
    let bench = Workbench::new();
    // Without clipping and with an absurd rate the weights overflow within a few steps.
    let spec = bench.spec(&json!({
        "training": {
            "learningRate": 1e18, "maxGradNorm": 0.0, "schedule": "Constant", "warmupSteps": 0,
            "steps": 50,
        },
        "evaluation": {"everySteps": 1000},
        "checkpoints": {"everySteps": 1, "keep": 3},
    }));
    let (outcome, events) = bench.run(&spec);
    let error = outcome.unwrap_err();
    let RunError::NotFinite { step, .. } = error else { unreachable!("{error}") };
    assert_eq!(error.class(), ExitClass::Configuration);
    let at = format!("is not a finite number at step {step}: training was stopped before the step");
    assert!(error.to_string().ends_with(&at), "{error}");
    assert!(error.hint().unwrap().starts_with("lower the learning rate"));
    assert_eq!(steps(&events).len() as u64, step - 1);
    let last = bench.output().join(format!("checkpoints/step-{:08}/state.json", step - 1));
    assert!(last.is_file());
}

#[test]
fn a_rank_larger_than_a_layer_is_refused() {
    let bench = Workbench::new();
    let spec = bench.spec(&json!({"adapter": {"lora": {"rank": 40}}}));
    let (outcome, _) = bench.run(&spec);
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), ExitClass::Configuration);
    assert!(error.to_string().starts_with("rank 40 is larger than layer `"), "{error}");
    assert_eq!(error.hint().unwrap(), "use a smaller rank, or exclude that layer");
}

#[test]
fn faults_of_the_data_are_told_with_their_lines() {
    let bench = Workbench::new();
    let lines =
        "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": 1, \"completion\": [2]}\n";
    std::fs::write(bench.path().join("train.jsonl"), lines).unwrap();
    let (outcome, events) = bench.run(&bench.spec(&json!({})));
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), ExitClass::Configuration);
    assert!(error.to_string().contains("train.jsonl:2: "), "{error}");
    assert!(matches!(events.last(), Some(Event::Failed { .. })));
}
