//! Base models that cannot be used, and what is said of them.

use insta::assert_snapshot;
use serde_json::{Value, json};
use tests_local::Project;

/// What `anneal run` says after `damage` was done to the model's folder.
fn said(damage: impl FnOnce(&Project)) -> String {
    let project = Project::new().unwrap();
    damage(&project);
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran.stderr.find("error:").map_or_else(|| ran.stderr.clone(), |at| ran.stderr[at..].to_owned())
}

fn edit(project: &Project, name: &str, change: impl FnOnce(&mut Value)) {
    let path = project.path().join("model").join(name);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn an_unknown_architecture_is_refused_by_name() {
    assert_snapshot!(said(|project| edit(project, "config.json", |config| {
        config["model_type"] = json!("mamba");
    })));
}

#[test]
fn missing_shards_are_named() {
    assert_snapshot!(said(|project| {
        let model = project.path().join("model");
        std::fs::remove_file(model.join("model.safetensors")).unwrap();
        let index =
            json!({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}});
        std::fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }));
}

#[test]
fn wrong_shapes_are_told() {
    assert_snapshot!(said(|project| edit(project, "config.json", |config| {
        config["intermediate_size"] = json!(96);
    })));
}

#[test]
fn a_truncated_weight_file_is_told() {
    assert_snapshot!(said(|project| {
        let path = project.path().join("model/model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }));
}

#[test]
fn a_tokenizer_without_an_end_token_is_told() {
    assert_snapshot!(said(|project| {
        edit(project, "tokenizer_config.json", |config| config["eos_token"] = json!("<|nowhere|>"));
    }));
}

#[test]
fn a_model_folder_that_is_not_there_is_told() {
    assert_snapshot!(said(|project| {
        std::fs::remove_dir_all(project.path().join("model")).unwrap();
    }));
}

#[test]
fn not_a_number_in_the_weights_is_told() {
    assert_snapshot!(said(|project| {
        let path = project.path().join("model/model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(path, bytes).unwrap();
    }));
}
