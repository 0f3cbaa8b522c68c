//! What must stay true of the code itself: the map is complete, layers stay apart, files stay small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Most lines of a source file. A longer one must be a table, and stand here with its reason.
const MOST_LINES: usize = 400;
const TABLES: [&str; 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every Rust file below a folder of the checkout, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(folder)];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn without(folder: &str, words: &[&str]) {
    for (name, text) in sources(folder) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in words {
                assert!(!code.contains(word), "{name}:{}: `{word}` has no place here", number + 1);
            }
        }
    }
}

#[test]
fn every_crate_is_in_the_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in ["crates", "tests"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("Cargo.toml").is_file() {
                let name = format!("{folder}/{}", path.file_name().unwrap().display());
                assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name {name}");
            }
        }
    }
}

#[test]
fn the_map_names_only_tests_and_sources_that_are_there() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let names =
        map.split('`').filter(|name| name.starts_with("crates/") || name.starts_with("tests/"));
    for name in names {
        assert!(root().join(name).exists(), "ARCHITECTURE.md names {name}, which is not there");
    }
}

#[test]
fn the_readme_has_the_two_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["\ncargo xtask quickstart\n", "\ncargo xtask test\n"] {
        assert!(readme.contains(command), "README.md lacks {command}");
    }
}

#[test]
fn files_are_small_and_say_what_they_are_for() {
    for (name, text) in sources("crates").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES || TABLES.contains(&name.as_str()), "{name} has {lines} lines");
        assert!(text.starts_with("//!"), "{name} does not begin with `//!`");
    }
}

#[test]
fn no_test_is_ignored() {
    // In two parts, so that this file does not hold it.
    let ignored = concat!("#[", "ignore");
    for (name, text) in sources("crates").into_iter().chain(sources("tests")) {
        assert!(!text.contains(ignored), "{name} has an ignored test");
    }
}

#[test]
fn decisions_read_no_file_and_no_clock() {
    let words = ["std::fs", "std::env::var", "std::net", "SystemTime", "Instant::", "File::open"];
    without("crates/api/src", &words);
    without("crates/plan/src", &words);
}

#[test]
fn model_files_know_nothing_of_adapters() {
    without("crates/lm/src/models", &["lora", "Lora", "adapter"]);
}

#[test]
fn only_the_engine_and_its_users_link_libtorch() {
    // What other platforms need was never downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let id =
        |name: &str| packages.iter().find(|package| package["name"] == name).unwrap()["id"].clone();
    for name in ["api", "plan", "oci", "testkit", "xtask"] {
        let mut seen = vec![id(name)];
        let mut next = 0;
        while next < seen.len() {
            let node = nodes.iter().find(|node| node["id"] == seen[next]).unwrap();
            for dependency in node["dependencies"].as_array().unwrap() {
                if !seen.contains(dependency) {
                    seen.push(dependency.clone());
                }
            }
            next += 1;
        }
        assert!(!seen.contains(&id("torch-sys")), "{name} links LibTorch");
    }
}
