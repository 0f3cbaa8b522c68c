//! Builds the registry, once for all tests of this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::left_out::left_out;
use crate::python::{cache_dir, succeed};

const PACKAGE: &str = "github.com/distribution/distribution/v3/cmd/registry";

/// Whether Go is here to build the registry; if not, tells that `test` is left out.
///
/// The caller returns on `false`.
pub fn needs_go(test: &str) -> bool {
    let mut go = Command::new("go");
    let version = go.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = version.is_ok_and(|status| status.success());
    if !found {
        left_out(test, "it needs Go (https://go.dev/dl) to build a registry");
    }
    found
}

/// The registry's program, built the first time: two minutes of one core.
///
/// Several processes may ask at once: one builds, the others wait.
pub fn binary() -> Result<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/tools/registry");
    let folder = cache_dir()?.join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let lock = File::create(folder.join("registry.lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot take the lock of the registry's program")?;
    let (program, stamp) = (folder.join("registry"), folder.join("registry.sum"));
    let wanted = pins(&module)?;
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(program);
    }
    let unfinished = folder.join("registry.unfinished");
    let mut build = Command::new("nice");
    build.args(["-n", "10", "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]);
    build.args(["-ldflags", "-s -w", "-o"]).arg(&unfinished).arg(PACKAGE);
    succeed(build.current_dir(&module).env("CGO_ENABLED", "0"))?;
    fs::rename(&unfinished, &program).context("cannot move the registry's program")?;
    fs::write(&stamp, wanted).context("cannot note what was built")?;
    Ok(program)
}

/// What decides the program: a digest of the pinned versions.
fn pins(module: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        digest.update(fs::read(&path).with_context(|| format!("no `{}`", path.display()))?);
    }
    Ok(crate::hex(&digest.finalize()))
}
