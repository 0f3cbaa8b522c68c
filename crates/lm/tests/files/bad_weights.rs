//! Missing tensors, wrong shapes, values that are not finite, and shards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lm::config::ModelConfig;
use lm::files::ModelFiles;
use lm::weights::{Weights, expected_tensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::{tensor, told};

/// A folder with a tiny Llama; `change` alters its tensors, `shards` spreads them over files.
fn model(change: impl FnOnce(&mut BTreeMap<String, Tensor>), shards: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 2,
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::open(&ModelFiles::Folder(folder.path().to_owned())).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = expected_tensors(&config)
        .into_iter()
        .map(|(name, shape)| (name, Tensor::randn(shape, (Kind::Float, Device::Cpu))))
        .collect();
    change(&mut tensors);
    save(folder.path(), &tensors, shards);
    folder
}

fn save(folder: &Path, tensors: &BTreeMap<String, Tensor>, shards: usize) {
    if shards == 1 {
        let pairs: Vec<_> = tensors.iter().collect();
        Tensor::write_safetensors(&pairs, folder.join("model.safetensors")).unwrap();
        return;
    }
    let mut map = BTreeMap::new();
    for shard in 0..shards {
        let name = format!("model-{shard}.safetensors");
        let part: Vec<_> =
            tensors.iter().enumerate().filter(|(index, _)| index % shards == shard).collect();
        let pairs: Vec<_> = part.iter().map(|(_, (name, tensor))| (name, tensor)).collect();
        Tensor::write_safetensors(&pairs, folder.join(&name)).unwrap();
        map.extend(part.iter().map(|(_, (tensor, _))| ((*tensor).clone(), name.clone())));
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

/// Opens the folder and checks the weights against its configuration.
fn checked(folder: &Path) -> Result<Weights, lm::weights::WeightsError> {
    let files = ModelFiles::open(folder).unwrap();
    let weights = Weights::open(&files)?;
    weights.check(&ModelConfig::open(&files).unwrap())?;
    Ok(weights)
}

#[test]
fn single_and_sharded_files_hold_the_same() {
    for shards in [1, 3] {
        let mut copy = BTreeMap::new();
        let folder = model(
            |tensors| copy = tensors.iter().map(|(k, v)| (k.clone(), v.shallow_clone())).collect(),
            shards,
        );
        let weights = checked(folder.path()).unwrap();
        assert_eq!(weights.names().count(), copy.len());
        for (name, expected) in &copy {
            assert!(tensor(&weights, name, Kind::Float).equal(expected), "{name}");
            let rounded = expected.to_kind(Kind::BFloat16);
            assert!(tensor(&weights, name, Kind::BFloat16).equal(&rounded), "{name}");
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = model(
        |tensors| {
            tensors.remove("model.layers.1.mlp.up_proj.weight");
            tensors.remove("model.norm.weight");
        },
        1,
    );
    let error = checked(folder.path()).unwrap_err();
    let expected = "cannot load the weights of MODEL/model.safetensors: 2 tensors are missing: \
                    model.layers.1.mlp.up_proj.weight, model.norm.weight";
    assert_eq!(told(&error, folder.path()), expected);
    assert!(error.hint().is_some());
}

#[test]
fn wrong_shapes_are_named() {
    let narrow = Tensor::zeros([8, 7], (Kind::Float, Device::Cpu));
    let folder = model(
        |tensors| {
            tensors.insert("model.layers.0.self_attn.q_proj.weight".to_owned(), narrow);
        },
        1,
    );
    let error = checked(folder.path()).unwrap_err();
    let expected = "cannot load the weights of MODEL/model.safetensors: wrong shapes: \
                    `model.layers.0.self_attn.q_proj.weight` is [8, 7] and config.json says [8, 8]";
    assert_eq!(told(&error, folder.path()), expected);
}

#[test]
fn a_tensor_that_the_index_promises_is_missed() {
    let folder = model(|_| {}, 2);
    let path = folder.path().join("model.safetensors.index.json");
    let index = fs::read_to_string(&path).unwrap();
    fs::write(&path, index.replace("\"model.norm.weight\"", "\"model.other\"")).unwrap();
    let error = checked(folder.path()).unwrap_err();
    let text = told(&error, folder.path());
    let start = "cannot load the weights of MODEL: 1 tensor is missing: `model.other` (in model-";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_place() {
    for (kind, value, shown) in [
        (Kind::Float, f64::NAN, "NaN"),
        (Kind::Float, f64::NEG_INFINITY, "-inf"),
        (Kind::BFloat16, f64::INFINITY, "inf"),
        (Kind::Half, f64::NAN, "NaN"),
        (Kind::Double, f64::NAN, "NaN"),
    ] {
        let name = "model.layers.0.mlp.down_proj.weight";
        let folder = model(
            |tensors| {
                let changed = tensors[name].to_kind(kind);
                let _ = changed.get(3).get(5).fill_(value);
                tensors.insert(name.to_owned(), changed);
            },
            1,
        );
        let error =
            checked(folder.path()).unwrap().tensor(name, Kind::Float, Device::Cpu).unwrap_err();
        let expected =
            format!("cannot load `{name}` of MODEL/model.safetensors: it holds {shown} at [3, 5]");
        assert_eq!(told(&error, folder.path()), expected);
        assert!(error.hint().is_some());
    }
}

#[test]
fn element_types_of_no_weight_are_refused() {
    let name = "model.norm.weight";
    let folder = model(
        |tensors| {
            tensors.insert(name.to_owned(), Tensor::ones([8], (Kind::Int64, Device::Cpu)));
        },
        1,
    );
    let error = checked(folder.path()).unwrap().tensor(name, Kind::Float, Device::Cpu).unwrap_err();
    let expected = "cannot load `model.norm.weight` of MODEL/model.safetensors: its element type I64 is \
                    not supported";
    assert_eq!(told(&error, folder.path()), expected);
}

#[test]
fn the_text_part_of_a_wrapped_model_is_found() {
    let folder = model(
        |tensors| {
            let wrapped = |name: &str| match name.strip_prefix("model.") {
                Some(rest) => format!("language_model.model.{rest}"),
                None => format!("language_model.{name}"),
            };
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, tensor)| (wrapped(&name), tensor))
                .collect();
        },
        1,
    );
    checked(folder.path()).unwrap();
}

#[test]
fn a_large_tensor_is_read_by_several_threads() {
    let shape = [1000, 700];
    let expected = Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    Tensor::write_safetensors(&[("a", &expected)], &path).unwrap();
    let weights = Weights::open_file(&path).unwrap();
    assert!(tensor(&weights, "a", Kind::Float).equal(&expected));
    assert!(tensor(&weights, "a", Kind::BFloat16).equal(&expected.to_kind(Kind::BFloat16)));
}
