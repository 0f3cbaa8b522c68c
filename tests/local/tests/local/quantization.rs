//! `QLoRA`: a base model in 4 or 8 bits is trained on, goes on after a kill, and answers with what it learned.

use serde_json::Value;
use tests_local::{Project, WORKSPACE, events, of_kind};

const PROMPT: [&str; 4] = ["--prompt", "1: apple or sky?", "--max-new-tokens", "4"];

/// A project whose base model is held in `format`.
fn project(format: &str) -> Project {
    let project = Project::new().unwrap();
    project.write("tune.yaml", &format!("{WORKSPACE}  quantization: {format}\n")).unwrap();
    project
}

fn losses(events: &[Value]) -> Vec<f64> {
    of_kind(events, "step").iter().map(|step| step["loss"].as_f64().unwrap()).collect()
}

fn answer(project: &Project, more: &[&str]) -> String {
    let all: Vec<&str> = ["generate"].iter().chain(more).chain(&PROMPT).copied().collect();
    let ran = project.run(&all).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
}

#[test]
fn a_run_on_a_quantized_model_learns_resumes_and_answers() {
    for (format, argument) in [("NF4", "nf4"), ("Int8", "int8")] {
        let whole = project(format);
        let expected = whole.train().unwrap();
        let learned = losses(&expected);
        assert!(learned[11] < 0.7 * learned[0], "{format}: {learned:?}");
        let plain = Project::new().unwrap().train().unwrap();
        assert_ne!(learned, losses(&plain), "{format}: the base model is another one");

        let begun = project(format);
        let mut child = begun
            .anneal(&["run", "-f", "tune.yaml", "-o", "json"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let saved = std::io::BufRead::lines(output).any(|line| {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            event["event"] == "saved"
        });
        assert!(saved, "{format}: no checkpoint was written");
        child.kill().unwrap();
        child.wait().unwrap();
        let resumed = begun.train().unwrap();
        assert_eq!(of_kind(&resumed, "resumed").len(), 1, "{format}");
        let all = std::fs::read_to_string(begun.path().join(".anneal/tiny/events.jsonl")).unwrap();
        assert_eq!(losses(&events(&all).unwrap()), learned, "{format}");

        let tuned = answer(&whole, &["--adapter", ".anneal/tiny", "--quantization", argument]);
        assert_ne!(tuned, answer(&whole, &["--model", "model", "--quantization", argument]));
    }
}

#[test]
fn every_weight_cannot_be_trained_of_a_quantized_model() {
    let project = Project::new().unwrap();
    let lora = "  adapter:\n    lora:\n      rank: 4\n      dropout: 0.1\n";
    let workspace = WORKSPACE.replace(lora, "  adapter: {full: {}}\n");
    assert_ne!(workspace, WORKSPACE);
    project.write("tune.yaml", &format!("{workspace}  quantization: NF4\n")).unwrap();
    let ran = project.run(&["validate", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stderr);
}
