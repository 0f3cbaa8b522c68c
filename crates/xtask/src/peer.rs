//! The Python environment of the speed benchmark's peer.

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
    let requirements = shell::workspace().join(SCRIPTS).join("requirements.txt");
    let folder = shell::cache()?.join("venv-peer");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.sha256"));
    let wanted = fetch::sha256(&requirements)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found.trim() == wanted) {
        return Ok(python);
    }
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--requirement"];
    shell::run(Command::new(&python).args(install).arg(&requirements))?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}
