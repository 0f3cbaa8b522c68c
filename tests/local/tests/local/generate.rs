//! Answers of a base model, and of a base model with an adapter.

use tests_local::Project;

const MORE: [&str; 4] = ["--prompt", "1: apple or sky?", "--max-new-tokens", "6"];

fn generate(project: &Project, arguments: &[&str]) -> String {
    let all: Vec<&str> = ["generate"].iter().chain(arguments).chain(&MORE).copied().collect();
    let ran = project.run(&all).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
}

#[test]
fn the_same_seed_gives_the_same_answer_and_streaming_changes_nothing() {
    let project = Project::new().unwrap();
    let drawn = ["--model", "model", "--temperature", "1", "--top-p", "0.9", "--seed", "7"];
    let first = generate(&project, &drawn);
    assert_eq!(first, generate(&project, &drawn));
    let whole: Vec<&str> = drawn.iter().chain(&["--no-stream"]).copied().collect();
    assert_eq!(first, generate(&project, &whole));
    let other = ["--model", "model", "--temperature", "1", "--top-p", "0.9", "--seed", "8"];
    assert_ne!(first, generate(&project, &other));
}

#[test]
fn an_adapter_is_taken_from_a_runs_folder_its_own_folder_or_its_image() {
    let project = Project::new().unwrap();
    project.train().unwrap();
    let base = generate(&project, &["--model", "model"]);
    let from_run = generate(&project, &["--adapter", ".anneal/tiny"]);
    assert_ne!(base, from_run);
    for adapter in [".anneal/tiny/adapter", "oci:.anneal/tiny/image"] {
        assert_eq!(generate(&project, &["--model", "model", "--adapter", adapter]), from_run);
    }
}

#[test]
fn json_tells_tokens_and_why_the_answer_ended() {
    let project = Project::new().unwrap();
    let text = generate(&project, &["--model", "model", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["tokens"], 6);
    assert_eq!(value["finishReason"], "length");
}

#[test]
fn an_adapter_that_is_not_there_is_told() {
    let project = Project::new().unwrap();
    let ran = project.run(&["generate", "--adapter", "nowhere", "--prompt", "a"]).unwrap();
    assert_eq!(ran.code, 10);
    insta::assert_snapshot!(ran.stderr);
}
