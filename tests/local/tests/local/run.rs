//! The main job on a tiny model.

use std::path::Path;

use tests_local::{Project, WORKSPACE, of_kind};

#[test]
fn a_run_trains_compares_and_publishes() {
    let project = Project::new().unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("step 12/12"), "{}", ran.stderr);
    for text in ["8 test examples", "token accuracy", "adapter  oci:.anneal/tiny/image", "next:"] {
        assert!(ran.stdout.contains(text), "no `{text}` in\n{}", ran.stdout);
    }
    let run = project.path().join(".anneal/tiny");
    for file in ["run.json", "events.jsonl", "report.html", "adapter/adapter_config.json"] {
        assert!(run.join(file).is_file(), "{file}");
    }
}

#[test]
fn the_loss_falls() {
    let events = Project::new().unwrap().train().unwrap();
    let losses: Vec<f64> =
        of_kind(&events, "step").iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 12);
    assert!(losses[11] < 0.8 * losses[0], "{losses:?}");
}

#[test]
fn the_same_run_again_trains_nothing_and_says_so() {
    let project = Project::new().unwrap();
    let first = project.train().unwrap();
    let again = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("this run was complete already"), "{}", again.stderr);
    let digest = of_kind(&first, "published")[0]["digest"].as_str().unwrap();
    assert!(again.stdout.contains(digest), "{}", again.stdout);
}

#[test]
fn two_runs_in_two_folders_give_the_same_digest() {
    let digest = || {
        let events = Project::new().unwrap().train().unwrap();
        of_kind(&events, "published")[0]["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(digest(), digest());
}

#[test]
fn a_changed_workspace_starts_a_new_run_beside_the_old_one() {
    let project = Project::new().unwrap();
    let before = project.train().unwrap();
    project.edit("rank: 4", "rank: 2").unwrap();
    let after = project.train().unwrap();
    let started = |events: &[serde_json::Value]| of_kind(events, "started")[0].clone();
    assert_ne!(started(&before)["dir"], started(&after)["dir"]);
    assert_ne!(started(&before)["revision"], started(&after)["revision"]);
}

#[test]
fn full_fine_tuning_gives_a_model_that_answers() {
    let project = Project::new().unwrap();
    let lora = "lora:\n      rank: 4\n      dropout: 0.1";
    project.edit(lora, "full: {}").unwrap();
    let config = project.path().join("model/config.json");
    let half = std::fs::read_to_string(&config).unwrap().replace("float32", "bfloat16");
    std::fs::write(&config, half).unwrap();
    let events = project.train().unwrap();
    assert_eq!(of_kind(&events, "step").len(), 12);
    let config = project.path().join(".anneal/tiny/model/config.json");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "float32", "of the weights beside it");
    let arguments =
        ["generate", "--adapter", ".anneal/tiny", "--prompt", "a", "--max-new-tokens", "2"];
    let ran = project.run(&arguments).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn all_weights_of_a_gguf_file_become_a_folder_that_answers() {
    let project = Project::new().unwrap();
    testkit::tiny_model::write_gguf(&project.path().join("base.gguf"), 1).unwrap();
    let workspace = WORKSPACE
        .replace("path: model", "path: base.gguf")
        .replace("lora:\n      rank: 4\n      dropout: 0.1", "full: {}");
    project.write("tune.yaml", &workspace).unwrap();
    project.train().unwrap();
    let answer = |model: [&str; 2]| {
        let arguments = ["--prompt", "1: apple or sky?", "--max-new-tokens", "4"];
        let all: Vec<&str> = ["generate"].iter().chain(&model).chain(&arguments).copied().collect();
        let ran = project.run(&all).unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    let tuned = answer(["--adapter", ".anneal/tiny"]);
    assert_eq!(tuned, answer(["--model", ".anneal/tiny/model"]));
    assert_ne!(tuned, answer(["--model", "base.gguf"]));
    let folder = project.path().join(".anneal/tiny/model");
    let theirs = answer_of_transformers(&folder, "1: apple or sky?", "4").unwrap();
    assert_eq!(tuned.trim(), theirs.trim());
}

/// Greedy answer of transformers with a model folder: its configuration, weights, tokenizer and template.
fn answer_of_transformers(folder: &Path, prompt: &str, new_tokens: &str) -> anyhow::Result<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let requirements = tests.join("numerics/scripts/requirements.txt");
    let python = testkit::python::environment("venv-peer", &requirements)?;
    let script = tests.join("clients/scripts/folder_answers.py");
    let mut script = testkit::python::script(&python, &script);
    testkit::python::succeed(script.arg(folder).args([prompt, new_tokens]))
}

#[test]
fn a_gate_is_told_with_both_numbers_and_refuses_nothing() {
    let project = Project::new().unwrap();
    let gate = "evaluation:\n    gate: {metric: Accuracy, atLeast: 0.0}";
    project.edit("evaluation:", gate).unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("gate     passed: Accuracy is "), "{}", ran.stdout);
    // The gate is no part of the revision: nothing is trained again.
    project
        .edit("evaluation:", &gate.replace("Accuracy, atLeast: 0.0", "Loss, atMost: 0.0"))
        .unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("this run was complete already"), "{}", ran.stderr);
    assert!(ran.stdout.contains("gate     failed: Loss is "), "{}", ran.stdout);
    assert!(ran.stdout.contains("; asked for: at most 0"), "{}", ran.stdout);
}
