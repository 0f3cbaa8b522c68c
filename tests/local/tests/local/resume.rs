//! Nothing is lost: a run that was ended in any way goes on with the same losses and ends with the
//! same adapter.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests_local::{Project, events, of_kind};

/// Starts a run and reads its events up to the step.
fn start_and_wait_for(
    project: &Project,
    step: u64,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = project.anneal(&["run", "-f", "tune.yaml", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "step" && event["step"] == step {
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
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
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

#[test]
fn a_truncated_checkpoint_is_left_for_the_one_before() {
    let whole = Project::new().unwrap();
    let expected = whole.train().unwrap();
    let project = Project::new().unwrap();
    let (mut child, _) = start_and_wait_for(&project, 9);
    child.kill().unwrap();
    child.wait().unwrap();
    truncate_newest_checkpoint(&project);
    let resumed = project.train().unwrap();
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
