//! What must stay true of the operator's code.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes to the API server are in `apply`, and in `leader` for its own Lease; the rest looks and decides.
#[test]
fn one_module_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let writes = [".patch(", ".patch_status(", ".create(", ".replace(", ".delete(", ".publish("];
    let mut files = 0;
    let mut left = vec![folder];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files += 1;
        if ["apply.rs", "leader.rs"].contains(&name.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for write in writes {
            assert!(!text.contains(write), "{name} writes with `{write}`");
        }
    }
    assert!(files > 8);
}

/// The operator builds where there is no LibTorch.
#[test]
fn no_libtorch() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "operator", "--edges", "normal", "--prefix", "none"])
        .args(["--offline", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(tree.stdout).unwrap();
    assert!(text.contains("kube-runtime"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("tch ") || line.starts_with("torch-sys ")));
}

/// `reconcile` looks, decides and acts, and stays that short.
#[test]
fn a_pass_reads_in_one_look() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/workspace.rs");
    let text = fs::read_to_string(path).unwrap();
    let start = text.find("pub(crate) fn reconcile").unwrap();
    let end = text.find("fn span(").unwrap();
    assert!(text[start..end].lines().count() <= 50);
}
