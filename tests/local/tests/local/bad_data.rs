//! Mistakes in the data are all found before training, each with file and line.

use insta::assert_snapshot;
use tests_local::{Project, examples};

fn validate(train: &str) -> String {
    let project = Project::new().unwrap();
    project.write("train.jsonl", train).unwrap();
    let ran = project.run(&["validate", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    error(&ran.stderr).to_owned()
}

/// The error itself, without the lines about progress before it.
fn error(stderr: &str) -> &str {
    stderr.find("error:").map_or(stderr, |at| &stderr[at..])
}

#[test]
fn every_kind_of_fault_is_told_with_its_line() {
    let mut train = examples(0..2);
    train += r#"{"messages": [{"role": "user", "content": "no answer"}]}"#;
    train += "\n{\"messages\": [{\"role\": \"robot\", \"content\": \"x\"}]}\n";
    train += "not json\n";
    train += &examples(0..1);
    train += r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "green"}]}"#;
    assert_snapshot!(validate(&train));
}

#[test]
fn no_examples_are_told() {
    assert_snapshot!(validate(""));
}

#[test]
fn more_than_twenty_faults_are_counted() {
    let text = validate(&"oops\n".repeat(30));
    assert!(text.contains("30 faults"), "{text}");
    assert!(text.contains("and 10 more"), "{text}");
}

#[test]
fn bad_utf8_is_told_with_its_line() {
    let project = Project::new().unwrap();
    let mut bytes = examples(0..3).into_bytes();
    bytes.extend(b"{\"messages\": \"\xff\"}\n");
    std::fs::write(project.path().join("train.jsonl"), bytes).unwrap();
    let ran = project.run(&["validate", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10);
    assert_snapshot!(error(&ran.stderr));
}

#[test]
fn files_that_are_not_there_are_told_all_at_once() {
    let project = Project::new().unwrap();
    project.edit("path: t", "path: missing-t").unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10);
    assert_snapshot!(error(&ran.stderr));
}

#[test]
fn one_example_is_told() {
    assert_snapshot!(validate(&examples(0..1)));
}

#[test]
fn examples_of_one_token_are_told() {
    let project = Project::new().unwrap();
    project.write("train.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\"}\n").unwrap();
    project.write("tune.yaml", TEXT).unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert_snapshot!(error(&ran.stderr));
}

const TEXT: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata: {name: one}
spec:
  baseModel: {path: model}
  data: {train: {path: train.jsonl}}
  hyperparameters: {maxSteps: 2, precision: FP32}
";
