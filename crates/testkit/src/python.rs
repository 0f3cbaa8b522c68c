//! A Python environment with pinned packages, for tests that need the world's own tools.
//!
//! It is made once by `venv` and pip and kept under the cache folder; a changed list of packages
//! makes it anew. It does not choose packages: callers name a requirements file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// The interpreter of the environment `name` with the packages of the file `requirements`.
///
/// Several processes may ask at once: one makes it, the others wait.
pub fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make `{}`", cache.display()))?;
    let folder = cache.join(name);
    let wanted = fs::read(requirements)
        .with_context(|| format!("cannot read `{}`", requirements.display()))?;
    let wanted = crate::hex(&Sha256::digest(&wanted));
    let lock =
        File::create(cache.join(format!("{name}.lock"))).context("cannot make a lock file")?;
    lock.lock().context("cannot take the lock of a Python environment")?;
    let stamp = folder.join("requirements.sha256");
    let python = folder.join("bin/python");
    if fs::read_to_string(&stamp).is_ok_and(|found| found.trim() == wanted) {
        return Ok(python);
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--requirement"];
    succeed(Command::new(&python).args(pip).arg(requirements))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write `{}`", stamp.display()))?;
    Ok(python)
}

/// A command of that interpreter, offline and gentle to a shared machine.
pub fn script(python: &Path, script: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(script).env("OMP_WAIT_POLICY", "PASSIVE").env("HF_HUB_OFFLINE", "1");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a command to its end and returns its output; a failure holds what it printed.
pub fn succeed(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} ended with {}:\n{errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where downloads are kept: `ANNEAL_CACHE`, or `.cache/anneal` in the home folder.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("ANNEAL_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let home = std::env::var_os("HOME").context("neither ANNEAL_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/anneal"))
}
