//! Mistakes in the YAML: all at once, each with line and field, and what was probably meant.

use insta::assert_snapshot;
use tests_local::{Project, WORKSPACE};

fn faults(yaml: &str) -> String {
    let project = Project::new().unwrap();
    project.write("tune.yaml", yaml).unwrap();
    let ran = project.run(&["validate", "-f", "tune.yaml", "--yaml-only"]).unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (10, ""));
    ran.stderr
}

#[test]
fn unknown_missing_mistyped_and_contradictory_fields_are_told_at_once() {
    assert_snapshot!(faults(
        "apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata:
  name: Tiny
spec:
  baseModel:
    path: model
    image: registry.example.com/a/b
  data:
    trian:
      path: train.jsonl
  hyperparameters:
    epochs: 1
    maxSteps: 2
    batchSize: four
    learningRate: -1
  quantization: FP4
"
    ));
}

#[test]
fn contradictions_are_told_at_once() {
    let yaml = WORKSPACE
        .replace("path: model", "path: model\n    image: registry.example.com/a/b")
        .replace("maxSteps: 12", "maxSteps: 12\n    epochs: 1")
        .replace("name: tiny", "name: Tiny");
    assert_snapshot!(faults(&yaml));
}

#[test]
fn text_that_is_no_yaml_is_told_with_its_line() {
    assert_snapshot!(faults("apiVersion: anneal.dev/v1alpha1\nspec: {data: [\n"));
}

#[test]
fn another_kind_is_refused() {
    assert_snapshot!(faults(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n"
    ));
}

#[test]
fn an_empty_file_is_refused() {
    assert_snapshot!(faults(""));
}

#[test]
fn a_rank_larger_than_the_layer_is_refused_with_its_line() {
    let project = Project::new().unwrap();
    project.edit("rank: 4", "rank: 64").unwrap();
    let ran = project.run(&["plan", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10);
    assert_snapshot!(last_lines(&ran.stderr));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let project = Project::new().unwrap();
    let ran = project.run(&["run", "-f", "none.yaml"]).unwrap();
    assert_eq!(ran.code, 10);
    assert_snapshot!(ran.stderr);
}

#[test]
fn faults_come_as_json_for_scripts() {
    let project = Project::new().unwrap();
    project.write("tune.yaml", &WORKSPACE.replace("batchSize", "batchsize")).unwrap();
    let ran = project.run(&["validate", "-f", "tune.yaml", "-o", "json"]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["exitCode"], 10);
    assert_eq!(value["faults"][0]["line"], 22);
    assert_eq!(value["faults"][0]["hint"], "did you mean `batchSize`?");
}

#[test]
fn files_that_are_no_workspace_are_told() {
    let project = Project::new().unwrap();
    std::fs::write(project.path().join("tune.yaml"), b"\x7fELF\x02\xff\xfe").unwrap();
    let binary = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    let folder = project.run(&["run", "-f", "model"]).unwrap();
    project.write("tune.yaml", &format!("{WORKSPACE}---\n{WORKSPACE}")).unwrap();
    let two = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    project.write("tune.yaml", &WORKSPACE.replace("  baseModel", "\tbaseModel")).unwrap();
    let tabs = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    let all = [binary, folder, two, tabs];
    assert!(all.iter().all(|ran| ran.code == 10));
    assert_snapshot!(all.map(|ran| ran.stderr).join("\n"));
}

/// The error itself, without the lines about progress before it.
fn last_lines(stderr: &str) -> &str {
    stderr.find("error:").map_or(stderr, |at| &stderr[at..])
}
