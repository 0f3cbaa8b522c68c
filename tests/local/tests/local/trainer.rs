//! The trainer as a container starts it: by one `RunSpec`, ending with a message and an exit code.

use std::process::Command;

use serde_json::Value;
use tests_local::{Project, Ran, program};

/// The project's plan as a run specification, in `run.json`.
fn specification(project: &Project) -> Value {
    let plan = project.run(&["plan", "-f", "tune.yaml", "-o", "json"]).unwrap();
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    project.write("run.json", &plan["runSpec"].to_string()).unwrap();
    plan["runSpec"].clone()
}

fn trainer(project: &Project) -> Command {
    let mut command = Command::new(program().with_file_name("trainer-image"));
    project.set_up(&mut command);
    command.env("ANNEAL_RUN_SPEC", "run.json").env("ANNEAL_TERMINATION_LOG", "message.json");
    command
}

fn message(project: &Project) -> Value {
    let text = std::fs::read(project.path().join("message.json")).unwrap();
    assert!(text.len() <= 4096);
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn the_trainer_ends_with_the_digest_that_a_local_run_gives() {
    let project = Project::new().unwrap();
    specification(&project);
    let ran = Ran::of(trainer(&project).env("ANNEAL_OUTPUT", "oci:image:v1")).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let told = message(&project);
    assert_eq!(told["outcome"], "succeeded");
    assert_eq!(told["adapter"]["reference"], "oci:image:v1");
    let pulled = project.run(&["pull", "oci:image:v1", "copy", "-o", "json"]).unwrap();
    let pulled: Value = serde_json::from_str(&pulled.stdout).unwrap();
    assert_eq!(pulled["digest"], told["adapter"]["digest"]);
}

#[test]
fn a_trainer_that_cannot_work_says_why_and_what_to_do() {
    let project = Project::new().unwrap();
    specification(&project);
    std::fs::remove_file(project.path().join("train.jsonl")).unwrap();
    let ran = Ran::of(&mut trainer(&project)).unwrap();
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    let told = message(&project);
    assert_eq!(told["class"], "configuration");
    assert!(told["cause"].as_str().unwrap().contains("train.jsonl"), "{told}");
}

#[test]
fn a_specification_that_is_not_there_is_told() {
    let project = Project::new().unwrap();
    let ran = Ran::of(&mut trainer(&project)).unwrap();
    assert_eq!(ran.code, 10);
    assert_eq!(message(&project)["nextStep"], "name the file in ANNEAL_RUN_SPEC");
}
