//! `cargo xtask cluster up | down | status`: a whole Kubernetes on this machine, with no Docker.
//!
//! The programs are built once from the Go modules in `tests/cluster/tools`; `tests/cluster/node` starts
//! them in namespaces of their own, so that nothing is left when they end.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::shell;

/// What the node consists of.
const PROGRAMS: [&str; 16] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "host-local",
    "bridge",
    "loopback",
    "portmap",
    "registry",
];

/// What the machine must have: program, a harmless argument, and the Debian package.
const TOOLS: [(&str, &str, &str); 8] = [
    ("go", "version", "golang"),
    ("gcc", "--version", "gcc"),
    ("nft", "--version", "nftables"),
    ("ip", "-V", "iproute2"),
    ("nsenter", "--version", "util-linux"),
    ("openssl", "version", "openssl"),
    ("curl", "--version", "curl"),
    ("python3", "--version", "python3"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Start it, building it the first time, which takes ten minutes of two cores. Needs root
    Up,
    /// End everything that runs in it
    Down,
    /// Say whether it runs
    Status,
}

pub(crate) fn run(what: &What) -> Result<()> {
    let word = match what {
        What::Up => {
            tools()?;
            build()?;
            "up"
        }
        What::Down => "down",
        What::Status => "status",
    };
    let script = shell::workspace().join("tests/cluster/node/cluster.sh");
    let (folder, programs) = (shell::cache()?.join("cluster"), shell::cache()?.join("bin"));
    shell::run(Command::new(script).arg(word).arg(folder).arg(programs))
}

fn build() -> Result<()> {
    shell::stage("Kubernetes' programs", || {
        let script = shell::workspace().join("tests/cluster/tools/build.sh");
        shell::run(Command::new(script).arg(shell::cache()?.join("bin")).args(PROGRAMS))
    })
}

/// Every missing tool at once.
fn tools() -> Result<()> {
    let missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, probe, _)| !shell::has(program, probe))
        .map(|(program, _, package)| format!("{program} (package {package})"))
        .collect();
    if !missing.is_empty() {
        bail!("this machine lacks {}", missing.join(", "));
    }
    Ok(())
}
