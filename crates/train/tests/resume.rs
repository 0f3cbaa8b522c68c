//! A run that is killed or stopped and started again is, bit for bit, the run that never stopped.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

use serde_json::json;
use support::{Workbench, losses, run_until, steps};
use train::RunError;
use train::event::Event;

/// Names the run specification of a child process; see [`child`].
const CHILD: &str = "ANNEAL_TEST_RUN_SPEC";
/// Begins the lines in which a child tells of its events.
const TOLD: &str = "event: ";

/// Not a test of its own: the process that the others kill. It tells each event, and goes on when it
/// is answered.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let spec = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut answers = std::io::stdin().lines();
    let mut tell = |event: &Event| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{TOLD}{}", serde_json::to_string(event).unwrap()).unwrap();
        out.flush().unwrap();
        answers.next().unwrap().unwrap();
    };
    train::run(&spec, &AtomicBool::new(false), &mut tell).unwrap();
}

/// Runs in a child process that is killed, by SIGKILL, as it tells of the first event that `kills`
/// is true for.
fn run_and_kill(bench: &Workbench, spec: &api::RunSpec, kills: impl Fn(&Event) -> bool) {
    let path = bench.path().join("child.json");
    std::fs::write(&path, serde_json::to_vec(spec).unwrap()).unwrap();
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = child.stdin.take().unwrap();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(event) = line.strip_prefix(TOLD) else { continue };
        if kills(&serde_json::from_str(event).unwrap()) {
            child.kill().unwrap();
            killed = true;
            break;
        }
        writeln!(answers).unwrap();
    }
    child.wait().unwrap();
    assert!(killed, "the child ended before it could be killed");
}

/// Whether the child is killed as it tells of an event.
type Kills = &'static dyn Fn(&Event) -> bool;

fn is_step(event: &Event, number: u64) -> bool {
    matches!(event, Event::Step(step) if step.step == number)
}

fn resumed_from(events: &[Event]) -> Option<u64> {
    events.iter().find_map(|event| match event {
        Event::Resumed { step, .. } => Some(*step),
        _ => None,
    })
}

#[test]
fn a_killed_run_goes_on_with_the_same_losses_and_the_same_adapter() {
    let whole = Workbench::new();
    let (outcome, _) = whole.run(&whole.spec(&json!({})));
    let digest = outcome.unwrap().finished.adapter_digest;
    let expected = losses(&whole.written());
    assert_eq!(expected.len(), 12 + 4);

    // Checkpoints are written after steps 3, 6, 9 and 12, and at each new best.
    let kill: [(&str, Kills, bool); 6] = [
        ("before any checkpoint", &|event| is_step(event, 2), false),
        ("between two checkpoints", &|event| is_step(event, 5), true),
        ("just after a checkpoint", &|event| matches!(event, Event::Saved { step: 6, .. }), true),
        ("after a validation", &|event| matches!(event, Event::Validated { step: 8, .. }), true),
        ("at the last step", &|event| is_step(event, 12), true),
        ("while the answers are scored", &|event| matches!(event, Event::Compared(_)), true),
    ];
    for (when, kills, resumes) in kill {
        let bench = Workbench::new();
        let mut spec = bench.spec(&json!({}));
        // The same data and model as the whole run, so that the specification is the same too.
        spec.base_model.path = whole.path().join("model");
        spec.data = whole.spec(&json!({})).data;
        run_and_kill(&bench, &spec, kills);
        let (outcome, events) = bench.run(&spec);
        assert_eq!(outcome.unwrap().finished.adapter_digest, digest, "killed {when}");
        assert_eq!(losses(&bench.written()), expected, "killed {when}");
        assert_eq!(resumed_from(&events).is_some(), resumes, "killed {when}");
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_still_ends_the_same() {
    let whole = Workbench::new();
    let (outcome, _) = whole.run(&whole.spec(&json!({})));
    let digest = outcome.unwrap().finished.adapter_digest;

    let bench = Workbench::new();
    let mut spec = bench.spec(&json!({}));
    spec.base_model.path = whole.path().join("model");
    spec.data = whole.spec(&json!({})).data;
    for step in [1, 4, 7, 8, 11] {
        run_and_kill(&bench, &spec, |event| is_step(event, step));
    }
    let (outcome, _) = bench.run(&spec);
    assert_eq!(outcome.unwrap().finished.adapter_digest, digest);
    assert_eq!(losses(&bench.written()), losses(&whole.written()));
}

#[test]
fn a_stopped_run_leaves_a_checkpoint_and_goes_on_from_it() {
    let whole = Workbench::new();
    let (outcome, _) = whole.run(&whole.spec(&json!({})));
    let digest = outcome.unwrap().finished.adapter_digest;

    let bench = Workbench::new();
    let mut spec = bench.spec(&json!({}));
    spec.base_model.path = whole.path().join("model");
    spec.data = whole.spec(&json!({})).data;
    let (outcome, events) = run_until(&spec, |event| is_step(event, 7));
    let error = outcome.unwrap_err();
    assert!(matches!(error, RunError::Stopped { step: 7, steps: 12 }));
    assert_eq!(error.to_string(), "stopped at step 7 of 12; the checkpoint is written");
    assert_eq!(error.hint().unwrap(), "run the same command again to go on");
    assert_eq!(events.last(), Some(&Event::Stopped { step: 7, steps: 12 }));

    // Stopped again, in the middle of a validation, which is then made up for.
    let validating = |event: &Event| {
        matches!(event, Event::Progress { what, .. }
        if *what == train::event::Activity::Validating)
    };
    let (outcome, events) = run_until(&spec, validating);
    assert!(matches!(outcome.unwrap_err(), RunError::Stopped { step: 8, .. }));
    assert_eq!(resumed_from(&events), Some(7));

    let (outcome, events) = bench.run(&spec);
    assert_eq!(outcome.unwrap().finished.adapter_digest, digest);
    assert_eq!(resumed_from(&events), Some(8));
    assert_eq!(steps(&events).len(), 4);
    assert_eq!(losses(&bench.written()), losses(&whole.written()));
}

#[test]
fn full_fine_tuning_resumes_too() {
    let (whole, bench) = (Workbench::new(), Workbench::new());
    let spec = |folder: &Workbench| {
        let mut spec = whole.spec(&json!({"output": {"dir": folder.output()}}));
        spec.adapter = api::run_spec::Adapter::Full;
        spec
    };
    let (outcome, _) = whole.run(&spec(&whole));
    let digest = outcome.unwrap().finished.adapter_digest;
    run_and_kill(&bench, &spec(&bench), |event| is_step(event, 8));
    let (outcome, _) = bench.run(&spec(&bench));
    assert_eq!(outcome.unwrap().finished.adapter_digest, digest);
    assert_eq!(losses(&bench.written()), losses(&whole.written()));
}

#[test]
fn a_run_that_goes_on_takes_smaller_micro_batches_and_no_larger_ones() {
    let bench = Workbench::new();
    let mut spec = bench.spec(&json!({}));
    let micro_batch = || -> usize {
        let text = std::fs::read(bench.output().join("run.json")).unwrap();
        let spec: api::RunSpec = serde_json::from_slice(&text).unwrap();
        spec.training.micro_batch_tokens
    };
    run_until(&spec, |event| is_step(event, 4)).0.unwrap_err();
    assert_eq!(micro_batch(), 64);
    spec.training.micro_batch_tokens = 32;
    let (outcome, events) = run_until(&spec, |event| is_step(event, 7));
    outcome.unwrap_err();
    assert_eq!((resumed_from(&events), micro_batch()), (Some(4), 32));
    spec.training.micro_batch_tokens = 256;
    let (outcome, events) = bench.run(&spec);
    outcome.unwrap();
    assert_eq!((resumed_from(&events), micro_batch()), (Some(7), 32));

    let whole = Workbench::new();
    whole.run(&whole.spec(&json!({}))).0.unwrap();
    let loss = |events: &[Event]| steps(events).iter().map(|step| step.loss).collect::<Vec<_>>();
    for (expected, found) in loss(&whole.written()).iter().zip(loss(&bench.written())) {
        assert!((expected - found).abs() < 3e-4 * expected, "{expected} and {found}");
    }
}

#[test]
fn a_folder_in_use_is_refused() {
    let bench = Workbench::new();
    let spec = bench.spec(&json!({}));
    let mut second = None;
    let result = train::run(&spec, &AtomicBool::new(false), &mut |event| {
        if is_step(event, 1) {
            second = Some(bench.run(&spec).0);
        }
    });
    result.unwrap();
    let error = second.unwrap().unwrap_err();
    assert!(matches!(error, RunError::Busy(_)));
    assert!(error.to_string().ends_with("is in use by another run"));
}
