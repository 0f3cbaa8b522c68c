//! The workspaces in `deploy/samples` are what a new user starts from.

use std::path::Path;

use tests_local::{Project, Ran};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn every_sample_is_a_workspace_without_a_fault() {
    let project = Project::new().unwrap();
    let folder = root().join("deploy/samples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.to_str().unwrap();
        if file.contains("model-server") {
            // Another kind: `crates/api/tests/model_server.rs` reads it.
            continue;
        }
        let ran = project.run(&["validate", "--yaml-only", "-f", file]).unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        count += 1;
    }
    assert!(count >= 5, "{count} samples");
}

/// The quickstart's workspace with the real base model, and examples in the form that the quickstart
/// writes them in (`crates/xtask/src/review_data.rs` tests that form).
#[test]
fn the_quickstart_can_be_planned() {
    let project = Project::new().unwrap();
    let example = |number: usize| {
        let label = ["positive", "negative"][number % 2];
        let ask = "Is this movie review positive or negative? Answer with one word.";
        serde_json::json!({"messages": [
            {"role": "user", "content": format!("{ask}\n\nNumber {number} was {label}.")},
            {"role": "assistant", "content": label},
        ]})
    };
    let lines = |range: std::ops::Range<usize>| -> String {
        range.map(|number| format!("{}\n", example(number))).collect()
    };
    std::fs::create_dir_all(project.path().join(".anneal/data/reviews")).unwrap();
    std::fs::create_dir_all(project.path().join(".anneal/models")).unwrap();
    project.write(".anneal/data/reviews/train.jsonl", &lines(0..200)).unwrap();
    project.write(".anneal/data/reviews/test.jsonl", &lines(200..220)).unwrap();
    let model = project.path().join(".anneal/models/smollm2-135m-instruct.gguf");
    std::os::unix::fs::symlink(testkit::base_model::smollm2().unwrap(), model).unwrap();
    let sample = root().join("deploy/samples/quickstart.yaml");
    let mut command = project.anneal(&["plan", "-o", "json", "-f", sample.to_str().unwrap()]);
    let ran = Ran::of(&mut command).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let data = &plan["data"];
    let examples = |split: &str| data[split]["examples"].as_u64().unwrap();
    assert_eq!(examples("train") + examples("validation"), 200);
    assert_eq!(examples("test"), 20);
    // A label is one token, and its end another.
    assert_eq!(data["test"]["labelTokens"], 40);
    assert!(plan["runSpec"]["evaluation"]["metrics"].to_string().contains("MacroF1"), "{plan}");
}
