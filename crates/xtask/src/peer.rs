//! The Python environments of the speed benchmarks' peers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{fetch, shell};

/// Where the peer's scripts and the list of its packages are.
pub(crate) const SCRIPTS: &str = "tests/numerics/scripts";

/// An interpreter with the pinned packages, made where it is missing or its list has changed. Tests
/// that need the same packages share it.
pub(crate) fn python() -> Result<PathBuf> {
    environment("venv-peer", "requirements.txt")
}

/// The same with llama.cpp, which pip compiles the first time.
pub(crate) fn llama() -> Result<PathBuf> {
    environment("venv-llama", "llama_requirements.txt")
}

fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    let requirements = shell::workspace().join(SCRIPTS).join(requirements);
    let folder = shell::cache()?.join(name);
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.sha256"));
    let wanted = fetch::sha256(&requirements)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found.trim() == wanted) {
        return Ok(python);
    }
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--requirement"];
    let mut pip = Command::new(&python);
    // Of llama.cpp, what reads pictures is of no use here.
    pip.args(install).arg(&requirements).env("CMAKE_ARGS", "-DLLAVA_BUILD=OFF");
    shell::run(&mut pip)?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}
