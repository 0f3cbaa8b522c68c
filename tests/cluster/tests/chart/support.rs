//! Files of the repository, and programs that read them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize as _;
use serde_yaml::Value;
use testkit::left_out::left_out;

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(crate) fn read(path: &str) -> String {
    let path = repository(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether programs in Go can be built; if not, tells that `test` is left out.
pub(crate) fn needs_go(test: &str) -> bool {
    let mut command = Command::new("go");
    command.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return true;
    }
    left_out(test, "it needs `go` to build what reads our files");
    false
}

/// A command of one of the programs that are built from `tests/cluster/tools`.
pub(crate) fn tool(name: &str) -> Command {
    let program = testkit::cluster::tools::program(name).unwrap();
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end, well or not: what it wrote to standard output, and to standard error.
pub(crate) fn ended(command: &mut Command) -> Result<(bool, String, String)> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

/// Runs a command that must end well; what it wrote to standard output.
pub(crate) fn well(command: &mut Command) -> String {
    let (is_well, text, errors) = ended(command).unwrap();
    assert!(is_well, "{command:?}\n{text}{errors}");
    text
}

/// The objects of a YAML text.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let objects = documents.map(|document| Value::deserialize(document).unwrap());
    objects.filter(|object| !object.is_null()).collect()
}

/// One text of several objects.
pub(crate) fn yaml(objects: &[Value]) -> String {
    objects.iter().map(|one| format!("---\n{}", serde_yaml::to_string(one).unwrap())).collect()
}

/// Compares with a committed file, or writes it anew where `UPDATE_GOLDEN` is set.
pub(crate) fn golden(path: &str, wanted: &str, how: &str) {
    let path = repository(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != wanted {
        let differs = committed.lines().zip(wanted.lines()).position(|(one, other)| one != other);
        let line = differs.unwrap_or_else(|| committed.lines().count().min(wanted.lines().count()));
        panic!("{} is stale from line {}: {how}\n{wanted}", path.display(), line + 1);
    }
}
