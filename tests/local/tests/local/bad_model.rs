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

#[test]
fn a_part_of_a_split_gguf_file_is_told() {
    assert_snapshot!(said(|project| {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let mut part = b"GGUF\x03\0\0\0".to_vec();
        part.extend([0_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat());
        // A value of two bytes: the number of parts.
        part.extend([text("split.count"), 2_u32.to_le_bytes().to_vec(), vec![3, 0]].concat());
        std::fs::write(project.path().join("part.gguf"), part).unwrap();
        project.edit("path: model", "path: part.gguf").unwrap();
    }));
}

#[test]
fn weights_in_several_files_are_read_as_one_model() {
    let project = Project::new().unwrap();
    let digest = |project: &Project| {
        let events = project.train().unwrap();
        tests_local::of_kind(&events, "finished")[0]["adapterDigest"].clone()
    };
    let whole = digest(&project);
    let sharded = Project::new().unwrap();
    shard(&sharded.path().join("model"));
    assert_eq!(digest(&sharded), whole);
}

/// Splits the weights over two files with an index, as large models come.
fn shard(model: &std::path::Path) {
    let bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let mut map = serde_json::Map::new();
    let tensors: Vec<_> = header.iter().filter(|(name, _)| *name != "__metadata__").collect();
    let halves = tensors.chunks(tensors.len().div_ceil(2));
    for (number, half) in (1..).zip(halves) {
        let file = format!("model-{number:05}-of-00002.safetensors");
        let (mut rows, mut values) = (serde_json::Map::new(), Vec::new());
        for (name, row) in half {
            let at = |index: usize| row["data_offsets"][index].as_u64().unwrap() as usize;
            let start = values.len();
            values.extend(&data[at(0)..at(1)]);
            let mut row = (*row).clone();
            row["data_offsets"] = json!([start, values.len()]);
            rows.insert((*name).clone(), row);
            map.insert((*name).clone(), json!(file));
        }
        let rows = Value::Object(rows).to_string();
        let header = (rows.len() as u64).to_le_bytes();
        std::fs::write(
            model.join(file),
            [header.as_slice(), rows.as_bytes(), values.as_slice()].concat(),
        )
        .unwrap();
    }
    let index = json!({ "weight_map": map });
    std::fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn a_model_without_a_chat_template_is_told_of_conversations() {
    assert_snapshot!(said(|project| edit(project, "tokenizer_config.json", |config| {
        config.as_object_mut().unwrap().remove("chat_template");
    })));
}

#[test]
fn a_folder_or_a_file_of_another_kind_is_told() {
    for (wrong, why) in [("train.jsonl", "not with the bytes \"GGUF\""), ("empty", "it is empty")] {
        let told = said(|project| {
            std::fs::create_dir(project.path().join("empty")).unwrap();
            project.edit("path: model", &format!("path: {wrong}")).unwrap();
        });
        assert!(told.contains(why), "{told}");
        assert!(told.contains("hint: name a"), "{told}");
    }
}

#[test]
fn a_loss_that_is_not_a_number_is_told_with_its_step() {
    assert_snapshot!(said(|project| {
        // The last norm, which ends the file: with factors this large every logit overflows.
        let path = project.path().join("model/model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4 * 32..].copy_from_slice(&f32::MAX.to_le_bytes().repeat(32));
        std::fs::write(path, bytes).unwrap();
    }));
}
