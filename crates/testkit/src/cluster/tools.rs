//! Builds Kubernetes' programs from pinned Go modules, once for all tests of this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::left_out::left_out;
use crate::python::{cache_dir, succeed};

/// Version of everything that is Kubernetes' own.
const VERSION: &str = "v1.37.2";

/// The programs of a control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    pub etcd: PathBuf,
    pub api_server: PathBuf,
    pub controller_manager: PathBuf,
}

/// Whether a control plane can be built or is there; if not, tells that `test` is left out.
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
    let given = |name: &str| {
        given.as_ref().map(|folder| folder.join(name)).filter(|program| program.is_file())
    };
    let kubernetes = |name: &str| match given(name) {
        Some(program) => Ok(program),
        None => build("kubernetes", name, &format!("k8s.io/kubernetes/cmd/{name}"), &flags()),
    };
    Ok(ControlPlane {
        etcd: match given("etcd") {
            Some(program) => program,
            None => build("etcd", "etcd", "go.etcd.io/etcd/server/v3", "-s -w")?,
        },
        api_server: kubernetes("kube-apiserver")?,
        controller_manager: kubernetes("kube-controller-manager")?,
    })
}

/// Linker flags that give the programs their version.
fn flags() -> String {
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", VERSION),
            ("gitMajor", "1"),
            ("gitMinor", "37"),
            ("gitTreeState", "clean"),
        ] {
            flags += &format!(" -X {package}.{name}={value}");
        }
    }
    flags
}

/// A program of one of our Go modules.
///
/// Several processes may ask at once: one builds, the others wait.
fn build(module: &str, name: &str, package: &str, flags: &str) -> Result<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/tools");
    let module = tools.join(module);
    let folder = cache_dir()?.join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let lock = File::create(folder.join(format!("{name}.lock"))).context("cannot make a lock")?;
    lock.lock().with_context(|| format!("cannot take the lock of {name}"))?;
    let (program, stamp) = (folder.join(name), folder.join(format!("{name}.sum")));
    let wanted = pins(&module)?;
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(program);
    }
    let unfinished = folder.join(format!("{name}.unfinished"));
    let mut build = Command::new("nice");
    build.args(["-n", "10", "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]);
    build.args(["-ldflags", flags, "-o"]).arg(&unfinished).arg(package);
    succeed(build.current_dir(&module).env("CGO_ENABLED", "0"))?;
    fs::rename(&unfinished, &program).with_context(|| format!("cannot move {name}"))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot note that {name} was built"))?;
    Ok(program)
}

/// What decides a program: a digest of the pinned versions.
fn pins(module: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        digest.update(fs::read(&path).with_context(|| format!("no `{}`", path.display()))?);
    }
    Ok(crate::hex(&digest.finalize()))
}
