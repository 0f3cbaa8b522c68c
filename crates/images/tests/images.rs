//! An image of a program is a function of its files, and has what the program needs and nothing more.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci::{Options, Target};

/// A program of this machine that is linked with libraries.
fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

#[test]
fn equal_programs_make_equal_images() {
    let folder = tempfile::tempdir().unwrap();
    let digests = ["a", "b"].map(|name| {
        let copy = folder.path().join(name).join("program");
        fs::create_dir(copy.parent().unwrap()).unwrap();
        fs::copy(program(), &copy).unwrap();
        images::one(&copy).unwrap().digest().to_owned()
    });
    assert_eq!(digests[0], digests[1]);
    let copy = folder.path().join("a/program");
    let mut changed = fs::read(&copy).unwrap();
    changed.push(0);
    fs::write(&copy, changed).unwrap();
    assert_ne!(images::one(&copy).unwrap().digest(), digests[0]);
}

/// What is in the layers is read by `tar`, and started by the loader that is among it.
#[test]
fn the_program_runs_from_what_is_in_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("program");
    fs::copy(program(), &copy).unwrap();
    let layout = folder.path().join("layout");
    let target = Target::layout(&layout, "latest");
    oci::blocking::push(&images::one(&copy).unwrap(), &target, &Options::default()).unwrap();
    let root = folder.path().join("root");
    unpack(&layout, &root);
    let unpacked = root.join("usr/local/bin/program");
    assert_eq!(fs::metadata(&unpacked).unwrap().permissions().mode() & 0o7777, 0o755);
    let loader = fs::read_dir(root.join("lib64")).unwrap().next().unwrap().unwrap().path();
    let output = Command::new(&loader)
        .args([Path::new("--library-path"), &root.join("lib"), &unpacked, Path::new("--list")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("equal_programs_make_equal_images"), "{output:?}");
    let names: Vec<_> = fs::read_dir(root.join("usr/local/bin")).unwrap().collect();
    assert_eq!(names.len(), 1, "there is a program more than that: {names:?}");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let error = images::ALL[0].image(Path::new("nowhere")).unwrap_err().to_string();
    assert!(error.contains("nowhere/anneal-operator"), "{error}");
}

#[test]
fn a_script_is_not_taken_for_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "#!/bin/sh\nexec something\n").unwrap();
    let error = images::one(&script).unwrap_err().to_string();
    assert!(error.contains("is no program"), "{error}");
}

/// Unpacks the layers one over the other.
fn unpack(layout: &Path, root: &Path) {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
    };
    let manifest = fs::read(blob(&index["manifests"][0]["digest"])).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    fs::create_dir(root).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let file = blob(&layer["digest"]);
        let status = Command::new("tar").arg("-xf").arg(file).arg("-C").arg(root).status().unwrap();
        assert!(status.success());
    }
    let config = fs::read(blob(&manifest["config"]["digest"])).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/program");
}
