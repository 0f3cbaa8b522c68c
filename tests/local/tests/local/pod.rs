//! What a pod of the trainer answers while it runs, and what it says of a hang and of memory that ran out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};
use tests_local::pod::{Ended, Pod};
use tests_local::{Project, WORKSPACE, of_kind};

/// A project with a run that is long enough to be looked at.
fn long_run() -> Project {
    let project = Project::new().unwrap();
    let workspace = WORKSPACE
        .replace("maxSteps: 12", "maxSteps: 2000")
        .replace("everySteps: 6", "everySteps: 10");
    project.write("tune.yaml", &workspace).unwrap();
    project
}

fn is_step(event: &Value, step: u64) -> bool {
    event["event"] == "step" && event["step"] == step
}

#[test]
fn metrics_and_events_tell_how_far_the_run_is() {
    let project = long_run();
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    pod.wait_for_event(|event| is_step(event, 20)).unwrap();
    let (status, page) = pod.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let values = samples(&page);
    let value = |name: &str| -> f64 {
        let found = values.iter().find(|(known, _)| *known == format!("anneal_trainer_{name}"));
        found.unwrap_or_else(|| unreachable!("no {name} in\n{page}")).1
    };
    assert!(value("step") >= 20.0);
    assert!((value("steps") - 2000.0).abs() < 0.5);
    assert!(value("loss") > 0.0 && value("validation_loss") > 0.0);
    assert!(value("tokens_total") > value("step"));
    assert!(value("tokens_per_second") > 0.0 && value("peak_memory_bytes") > 1e6);
    assert!(value("pull_seconds_total") > 0.0 && value("train_seconds_total") > 0.0);
    assert!(value("push_seconds_total") <= 0.0);

    let (status, events) = pod.get("/events").unwrap();
    assert_eq!(status, 200);
    let events = tests_local::events(&events).unwrap();
    assert_eq!(of_kind(&events, "started").len(), 1);
    assert!(of_kind(&events, "step").len() >= 20);

    let mut stream = TcpStream::connect(pod.address()).unwrap();
    write!(stream, "GET /events?follow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let far = of_kind(&events, "step").len() as u64 + 10;
    let mut lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    let is_far = |line: &String| is_step(&serde_json::from_str(line).unwrap_or_default(), far);
    assert!(lines.any(|line| is_far(&line)), "step {far} is not told");

    assert_eq!(pod.get("/healthz").unwrap().0, 200);
    assert_eq!(pod.get("/nothing").unwrap().0, 404);
    pod.signal("TERM").unwrap();
    assert_eq!(pod.end().unwrap().code, Some(14));
}

/// Names and values of a page in Prometheus' text format; every name has its help and type before it.
fn samples(page: &str) -> Vec<(String, f64)> {
    let lines: Vec<&str> = page.lines().collect();
    let triple = |lines: &[&str]| {
        let [help, kind, sample] = lines else { unreachable!("{lines:?}") };
        let (name, value) = sample.split_once(' ').unwrap();
        assert!(help.starts_with(&format!("# HELP {name} ")), "{help}");
        let kinds = ["gauge", "counter"].map(|word| format!("# TYPE {name} {word}"));
        assert!(kinds.contains(&(*kind).to_owned()), "{kind}");
        assert_eq!(name.ends_with("_total"), kind.ends_with("counter"), "{kind}");
        (name.to_owned(), value.parse().unwrap())
    };
    lines.chunks(3).map(triple).collect()
}

/// A named pipe that nobody writes to stands for storage that does not answer any more.
#[test]
fn a_hang_is_told_and_ends_on_a_signal() {
    let project = Project::new().unwrap();
    let data = project.path().join("train.jsonl");
    std::fs::remove_file(&data).unwrap();
    assert!(Command::new("mkfifo").arg(&data).status().unwrap().success());
    let mut pod = Pod::start(&project, "train", &[("ANNEAL_STALL_SECONDS", "1")]).unwrap();
    assert_eq!(pod.get("/healthz").unwrap().0, 200);
    let is_hang = |fields: &Value| {
        fields["message"].as_str().is_some_and(|text| text.contains("no sign of work for"))
    };
    pod.wait_for(is_hang).unwrap();
    let (status, text) = pod.get("/healthz").unwrap();
    assert_eq!(status, 503, "{text}");
    let status: Value = serde_json::from_str(&pod.get("/status").unwrap().1).unwrap();
    assert!(status["idleSeconds"].as_u64().unwrap() >= 1, "{status}");
    // Where the kubelet kills it without another word, the message is there already.
    let message = std::fs::read_to_string(project.path().join("message.json")).unwrap();
    assert!(message.contains("no sign of work for"), "{message}");

    pod.signal("TERM").unwrap();
    let ended = pod.end().unwrap();
    assert_eq!(ended.code, Some(13), "{}", ended.log);
    assert!(ended.message["hint"].as_str().unwrap().contains("limits.stall"), "{}", ended.message);
}

#[test]
fn a_preflight_ends_at_once_when_it_is_stopped() {
    let project = Project::new().unwrap();
    let data = project.path().join("train.jsonl");
    std::fs::remove_file(&data).unwrap();
    assert!(Command::new("mkfifo").arg(&data).status().unwrap().success());
    let pod = Pod::start(&project, "preflight", &[]).unwrap();
    pod.signal("TERM").unwrap();
    let ended = pod.end().unwrap();
    assert_eq!(ended.code, Some(14), "{}", ended.log);
    assert_eq!(ended.message["message"], "stopped before the first step");
}

/// A project whose step takes a few hundred megabytes in one micro-batch, and little in small ones.
fn large_batches() -> Project {
    let project = Project::new().unwrap();
    let line = |number: usize| format!("{}\n", json!({"text": format!("{number} ").repeat(250)}));
    project.write("long.jsonl", &(1000..1128).map(line).collect::<String>()).unwrap();
    let workspace = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata: {name: tiny}
spec:
  baseModel: {path: model}
  data: {train: {path: long.jsonl}}
  hyperparameters:
    {maxSteps: 3, batchSize: 128, microBatchTokens: 163840, learningRate: 0.01, precision: FP32}
  checkpoints: {everySteps: 0}
";
    project.write("tune.yaml", workspace).unwrap();
    project
}

/// What a run came to, and the most address space that it took, in KiB.
struct Run {
    ended: Ended,
    peak: u64,
}

/// Trains to the end within so many KiB of address space.
fn train(limit: Option<u64>, halvings: &str) -> Run {
    let project = large_batches();
    let trainer = Pod::command(&project, "train");
    let mut command = Command::new("sh");
    project.set_up(&mut command);
    let limited = limit.map_or_else(String::new, |kibibytes| format!("ulimit -v {kibibytes} && "));
    command.args(["-c", &format!("{limited}exec \"$0\" \"$@\"")]);
    command.arg(trainer.get_program()).args(trainer.get_args());
    command.envs(trainer.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("ANNEAL_MICRO_BATCH_HALVINGS", halvings);
    let mut pod = Pod::spawn(&project, &mut command).unwrap();
    let mut peak = 0;
    if limit.is_none() {
        // There is one more step to come, in which it can be looked at.
        pod.wait_for_event(|event| is_step(event, 2)).unwrap();
        peak = pod.peak().unwrap();
    }
    Run { ended: pod.end().unwrap(), peak }
}

fn losses(run: &Run) -> Vec<f64> {
    let events = run.ended.events();
    of_kind(&events, "step").iter().map(|step| step["loss"].as_f64().unwrap()).collect()
}

#[test]
fn memory_that_ran_out_is_told_and_halved_micro_batches_give_the_same_losses() {
    const HALVINGS: &str = "7";
    let (whole, halved) = (train(None, "0"), train(None, HALVINGS));
    assert_eq!(whole.ended.code, Some(0), "{}", whole.ended.log);
    assert!(whole.peak > halved.peak + 200_000, "{} and {} KiB", whole.peak, halved.peak);
    let limit = Some(whole.peak.midpoint(halved.peak));

    let out = train(limit, "0").ended;
    assert_eq!(out.code, Some(12), "{}", out.log);
    let message = out.message["message"].as_str().unwrap();
    assert!(message.starts_with("out of memory while training: "), "{message}");

    let again = train(limit, HALVINGS);
    assert_eq!(again.ended.code, Some(0), "{}", again.ended.log);
    let (expected, found) = (losses(&whole), losses(&again));
    assert_eq!(expected.len(), 3);
    for (expected, found) in expected.iter().zip(&found) {
        assert!((expected - found).abs() <= 1e-5 * expected, "{expected} and {found}");
    }
}
