//! What images are made of: the contract of the adapter image, and that equal files give an equal
//! digest.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use oci::image::{EXTRA, MODELS, annotation};
use oci::{Folder, Options, Target, adapter_image, image_from_dirs};
use serde_json::Value;

fn adapter(folder: &Path) {
    fs::create_dir_all(folder.join("runs")).unwrap();
    let config = r#"{"base_model_name_or_path": "/home/me/SmolLM2-135M", "peft_type": "LORA"}"#;
    fs::write(folder.join("adapter_config.json"), config).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), [7; 3000]).unwrap();
    fs::write(folder.join("README.md"), "# An adapter").unwrap();
    fs::write(folder.join("runs/eval.json"), "{}").unwrap();
    fs::write(folder.join(".hidden"), "not for others").unwrap();
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> std::path::PathBuf {
    layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

/// The names in an archive, by a reader that is not ours.
fn listed(archive: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("-tf").arg(archive).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn fails(made: Result<oci::Image, oci::image::ImageError>) -> String {
    let error = oci::Error::from(made.map(|i| i.digest().to_owned()).unwrap_err());
    assert_eq!(error.class(), oci::Class::Input);
    format!("{error}; {}", error.hint().unwrap_or_default())
}

#[test]
fn the_adapter_image_keeps_its_contract() {
    let folder = tempfile::tempdir().unwrap();
    let (source, layout) = (folder.path().join("adapter"), folder.path().join("image"));
    adapter(&source);
    let given = BTreeMap::from([(annotation::DATA_DIGEST.to_owned(), "sha256:1".to_owned())]);
    let image = adapter_image(&source, &given).unwrap();
    let target = Target::layout(&layout, "v1");
    oci::blocking::push(&image, &target, &Options::default()).unwrap();

    let index = json(&layout.join("index.json"));
    assert_eq!(index["manifests"][0]["digest"], image.digest());
    let manifest = json(&blob(&layout, &index["manifests"][0]["digest"]));
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(manifest["annotations"]["sh.kaito.model.name"], "SmolLM2-135M");
    assert_eq!(manifest["annotations"]["anneal.dev/data-digest"], "sha256:1");

    let layers = manifest["layers"].as_array().unwrap();
    let tar = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(layers.iter().filter(|l| l["mediaType"] == tar).count(), 2);
    let config = json(&blob(&layout, &manifest["config"]["digest"]));
    assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
    assert_eq!(config["rootfs"]["type"], "layers");
    // Not compressed: stored and unpacked are the same bytes.
    let digests: Vec<_> = layers.iter().map(|l| l["digest"].clone()).collect();
    assert_eq!(config["rootfs"]["diff_ids"], Value::from(digests.clone()));

    assert_eq!(
        listed(&blob(&layout, &digests[0])),
        ["data/", "data/adapter_config.json", "data/adapter_model.safetensors"]
    );
    let extra = ["/", "/README.md", "/runs/", "/runs/eval.json"].map(|n| format!("{EXTRA}{n}"));
    assert_eq!(listed(&blob(&layout, &digests[1])), extra);
}

#[test]
fn equal_files_give_an_equal_digest_and_other_files_another() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    adapter(&one);
    adapter(&two);
    let digest =
        |folder: &Path| adapter_image(folder, &BTreeMap::new()).unwrap().digest().to_owned();
    // Times, owners, modes and the order on the disk do not count.
    let old = fs::File::options().write(true).open(two.join("adapter_model.safetensors")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let mut mode = fs::metadata(two.join("README.md")).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(two.join("README.md"), mode).unwrap();
    assert_eq!(digest(&one), digest(&two));
    // And the digest is part of what users rely on: it does not change from version to version.
    assert_eq!(
        digest(&one),
        "sha256:f2ddf5409fa0f6ec33c68e74d2fd53d6b64395a237784810d1022b3d457cefaa"
    );
    fs::write(one.join("adapter_model.safetensors"), [8; 3000]).unwrap();
    assert_ne!(digest(&one), digest(&two));
}

#[test]
fn a_folder_without_an_adapter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let none = || BTreeMap::new();
    assert!(fails(adapter_image(path, &none())).contains("adapter_config.json is missing"));
    fs::write(path.join("adapter_config.json"), "{").unwrap();
    assert!(fails(adapter_image(path, &none())).contains("adapter_model.safetensors is missing"));
    fs::write(path.join("adapter_model.safetensors"), "").unwrap();
    assert!(fails(adapter_image(path, &none())).contains("is not valid JSON"));
}

#[test]
fn any_folder_and_any_file_becomes_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("model/sub")).unwrap();
    fs::write(path.join("model/config.json"), "{}").unwrap();
    fs::write(path.join("model/sub/weights.bin"), [1; 600]).unwrap();
    fs::write(path.join("elsewhere"), "linked").unwrap();
    std::os::unix::fs::symlink(path.join("elsewhere"), path.join("model/tokenizer.json")).unwrap();
    let model = path.join("model");
    let image =
        image_from_dirs(&[Folder { root: MODELS, path: &model }], &BTreeMap::new()).unwrap();
    let layout = path.join("image");
    let target = Target::layout(&layout, "m");
    oci::blocking::push(&image, &target, &Options::default()).unwrap();
    let files = ["/", "/config.json", "/sub/", "/sub/weights.bin", "/tokenizer.json"];
    let layer = image.blobs()[0].digest.clone().into();
    assert_eq!(listed(&blob(&layout, &layer)), files.map(|n| format!("models{n}")));

    let file = path.join("elsewhere");
    let image = image_from_dirs(&[Folder { root: "data", path: &file }], &BTreeMap::new()).unwrap();
    assert_eq!(image.blobs().len(), 2);
    assert_eq!(image.size(), image.blobs().iter().map(|b| b.size).sum::<u64>());
}

#[test]
fn what_has_no_place_in_an_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let made = || image_from_dirs(&[Folder { root: "data", path }], &BTreeMap::new());
    assert!(fails(made()).contains("holds no files"));
    std::os::unix::fs::symlink(path, path.join("circle")).unwrap();
    assert!(fails(made()).contains("neither a file nor a folder"));
    fs::remove_file(path.join("circle")).unwrap();
    fs::write(path.join("n".repeat(120)), "").unwrap();
    assert!(fails(made()).contains("does not fit into an image"));
}

#[test]
fn a_file_that_changes_while_it_is_stored_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.jsonl"), [1; 5000]).unwrap();
    let folders = [Folder { root: "data", path: &path }];
    let image = image_from_dirs(&folders, &BTreeMap::new()).unwrap();
    let store = |to: &str| {
        let target = Target::layout(folder.path().join(to), "v1");
        oci::blocking::push(&image, &target, &Options::default()).unwrap_err().to_string()
    };
    fs::write(path.join("a.jsonl"), [2; 5000]).unwrap();
    assert!(store("changed").contains("has the digest"));
    fs::write(path.join("a.jsonl"), [2; 50]).unwrap();
    let error = store("shorter");
    assert!(error.contains("cannot read the source of"), "{error}");
}
