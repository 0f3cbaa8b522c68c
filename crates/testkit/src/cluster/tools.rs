//! Builds Kubernetes' programs from pinned Go modules, once for all tests of this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::left_out::left_out;
use crate::python::{cache_dir, succeed};

/// The programs of a control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    pub etcd: PathBuf,
    pub api_server: PathBuf,
    pub controller_manager: PathBuf,
}

/// Whether a control plane can be built; if not, tells that `test` is left out.
///
/// The caller returns on `false`.
pub fn needs_control_plane(test: &str) -> bool {
    for (program, argument) in [("go", "version"), ("curl", "--version"), ("bash", "--version")] {
        let mut command = Command::new(program);
        let status = command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            left_out(test, &format!("it needs `{program}` to build and start a control plane"));
            return false;
        }
    }
    true
}

/// etcd, API server and controller manager: built the first time, in about ten minutes of two cores.
///
/// `KUBEBUILDER_ASSETS` may name a folder that has etcd and kube-apiserver already.
pub fn control_plane() -> Result<ControlPlane> {
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let program = |name: &str| {
        let given = given.as_ref().map(|folder| folder.join(name));
        match given.filter(|program| program.is_file()) {
            Some(program) => Ok(program),
            None => self::program(name),
        }
    };
    Ok(ControlPlane {
        etcd: program("etcd")?,
        api_server: program("kube-apiserver")?,
        controller_manager: program("kube-controller-manager")?,
    })
}

/// A program of one of our Go modules, in the cache; built the first time.
pub fn program(name: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/tools/build.sh");
    let folder = cache_dir()?.join("bin");
    succeed(Command::new(script).arg(&folder).arg(name))?;
    Ok(folder.join(name))
}

/// The folder of a Go module that one of our modules needs, with what it ships beside its code.
pub fn module(ours: &str, path: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/tools").join(ours);
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", path]).env("GOFLAGS", "-mod=readonly");
    let found = succeed(go.current_dir(folder))?;
    let found: serde_json::Value = serde_json::from_str(&found).context("no JSON of go's")?;
    Ok(PathBuf::from(found["Dir"].as_str().context("go names no folder")?))
}
