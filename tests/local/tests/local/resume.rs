//! Nothing is lost: a run that was ended in any way goes on with the same losses and ends with the
//! same adapter.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests_local::{Project, Ran, WORKSPACE, events, examples, of_kind};

const RUN: [&str; 5] = ["run", "-f", "tune.yaml", "-o", "json"];

/// Starts a run and reads its events up to the step.
fn start_and_wait_for(
    project: &Project,
    step: u64,
) -> (Child, BufReader<std::process::ChildStdout>) {
    wait_for(project.anneal(&RUN), |event| event["event"] == "step" && event["step"] == step)
}

/// Starts a command and reads its events up to one.
fn wait_for(
    mut command: Command,
    is_it: impl Fn(&Value) -> bool,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        let event: Value = serde_json::from_str(&line).unwrap();
        if is_it(&event) {
            break;
        }
        line.clear();
    }
    (child, lines)
}

/// Loss of each step, from the log of the run.
fn losses(project: &Project) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(project.path().join(".anneal/tiny/events.jsonl")).unwrap();
    let step = |event: &&Value| (event["step"].as_u64().unwrap(), event["loss"].as_f64().unwrap());
    of_kind(&events(&text).unwrap(), "step").iter().map(step).collect()
}

fn digest(events: &[Value]) -> Value {
    of_kind(events, "published")[0]["digest"].clone()
}

#[test]
fn kill_at_any_step_loses_nothing() {
    let whole = Project::new().unwrap();
    let expected = whole.train().unwrap();
    for step in [1, 5, 6, 11] {
        let project = Project::new().unwrap();
        let (mut child, _) = start_and_wait_for(&project, step);
        child.kill().unwrap();
        child.wait().unwrap();
        let resumed = project.train().unwrap();
        assert_eq!(losses(&project), losses(&whole), "killed after step {step}");
        assert_eq!(digest(&resumed), digest(&expected), "killed after step {step}");
        if step > 2 {
            assert_eq!(of_kind(&resumed, "resumed").len(), 1, "killed after step {step}");
        }
    }
}

#[test]
fn ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on() {
    let whole = Project::new().unwrap();
    let expected = whole.train().unwrap();
    let project = Project::new().unwrap();
    let (child, mut lines) = start_and_wait_for(&project, 3);
    interrupt(&child);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    // A run this small may be past its last step before the signal arrives.
    if output.status.code() == Some(0) {
        return;
    }
    assert_eq!(output.status.code(), Some(14), "{stderr}");
    assert!(stderr.contains("hint: go on with `anneal run -f tune.yaml`"), "{stderr}");
    let resumed = project.train().unwrap();
    assert_eq!(digest(&resumed), digest(&expected));
    assert_eq!(losses(&project), losses(&whole));
}

/// Ctrl-C.
fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The exit code of a run that gets two signals after its next checkpoint, and what it says.
fn interrupted_twice(project: &Project) -> (Option<i32>, String) {
    let (mut child, _lines) = wait_for(project.anneal(&RUN), |event| event["event"] == "saved");
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("stopping: ") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    interrupt(&child);
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_second_ctrl_c_ends_at_once_and_the_run_goes_on_from_the_checkpoint_before() {
    let project = Project::new().unwrap();
    // Steps that take long enough for two signals to arrive in one of them.
    project.write("train.jsonl", &examples(100..4100)).unwrap();
    let workspace = WORKSPACE.replace("Size: 4", "Size: 2000");
    project.write("tune.yaml", &workspace.replace("everySteps: 2", "everySteps: 1")).unwrap();
    // Where the step ends between them all the same, the next one is tried.
    let said = (0..8).find_map(|_| {
        let (code, said) = interrupted_twice(&project);
        let at_once = said.contains("ended at once");
        if at_once {
            assert_eq!(code, Some(130), "{said}");
        } else {
            assert!(matches!(code, Some(14 | 130)) && !said.contains("is done"), "{said}");
        }
        at_once.then_some(said)
    });
    let said = said.expect("no step was long enough");
    let last = "ended at once: the same command goes on from the last checkpoint\n";
    assert!(said.ends_with(last), "{said}");
    let resumed = project.train().unwrap();
    assert_eq!(of_kind(&resumed, "resumed").len(), 1);
    assert_eq!(of_kind(&resumed, "published").len(), 1);
}

#[test]
fn a_template_that_writes_the_date_writes_the_same_one_after_a_resume() {
    let project = || {
        let project = Project::new().unwrap();
        let path = project.path().join("model/tokenizer_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let dated = text.replace("\"{% for", "\"{{ strftime_now('%d %b %Y') }}{% for");
        assert_ne!(text, dated);
        std::fs::write(path, dated).unwrap();
        project
    };
    let at = |project: &Project, time: &str| {
        let mut command = project.anneal(&RUN);
        command.env("SOURCE_DATE_EPOCH", time);
        command
    };
    let run = |project: &Project, time: &str| {
        let ran = Ran::of(&mut at(project, time)).unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        digest(&events(&ran.stdout).unwrap())
    };
    let (first_day, another_day) = ("1000000000", "1700000000");
    let expected = run(&project(), first_day);
    assert_ne!(run(&project(), another_day), expected);

    let resumed = project();
    let third = |event: &Value| event["event"] == "step" && event["step"] == 3;
    let (mut child, _) = wait_for(at(&resumed, first_day), third);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(run(&resumed, another_day), expected);
}

#[test]
fn a_truncated_checkpoint_is_left_for_the_one_before() {
    let whole = Project::new().unwrap();
    let expected = whole.train().unwrap();
    let project = Project::new().unwrap();
    let (mut child, _) = start_and_wait_for(&project, 9);
    child.kill().unwrap();
    child.wait().unwrap();
    truncate_newest_checkpoint(&project);
    let ran = project.run(&RUN).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let resumed = events(&ran.stdout).unwrap();
    let warning = of_kind(&resumed, "warning")[0];
    let message = warning["message"].as_str().unwrap();
    assert!(message.contains("cannot be used: `optimizer.safetensors` has "), "{message}");
    assert_eq!(warning["hint"], "an earlier one is used; the disk may be failing");
    assert_eq!(digest(&resumed), digest(&expected));
    assert_eq!(losses(&project), losses(&whole));
}

fn truncate_newest_checkpoint(project: &Project) {
    let folder = project.path().join(".anneal/tiny/checkpoints");
    let mut found: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    let mut files: Vec<_> = std::fs::read_dir(found.last().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.is_file());
    files.sort_by_key(|path| path.metadata().unwrap().len());
    let largest = files.last().unwrap();
    let bytes = std::fs::read(largest).unwrap();
    std::fs::write(largest, &bytes[..bytes.len() / 2]).unwrap();
}
