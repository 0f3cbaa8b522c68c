//! `cargo xtask cluster up | down | status | run`: a whole Kubernetes on this machine, with no Docker.
//!
//! The programs are built once from the Go modules in `tests/cluster/tools`; `tests/cluster/node` starts
//! them in namespaces of their own, so that nothing is left when they end.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::{images, shell};

/// The registry in the cluster that anybody may use; port 5001 is that of the other one.
const REGISTRY: &str = "10.99.0.1:5000";

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Start it, building it the first time, which takes ten minutes of two cores. Needs root
    Up,
    /// End everything that runs in it
    Down,
    /// Say whether it runs
    Status,
    /// Run a command in its network, such as `kubectl get nodes`
    Run {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

pub(crate) fn run(what: &What) -> Result<()> {
    match what {
        What::Up => up(),
        What::Down => shell::run(&mut script("down")?),
        What::Status => shell::run(&mut script("status")?),
        What::Run { command } => shell::run(script("in")?.args(command)),
    }
}

fn up() -> Result<()> {
    check()?;
    shell::stage("Kubernetes' programs", || {
        let script = shell::workspace().join("tests/cluster/tools/build.sh");
        shell::run(Command::new(script).arg(shell::cache()?.join("bin")).args(["node", "helm"]))
    })?;
    images::build()?;
    let start = Instant::now();
    shell::run(script("up")?.arg(images::builds()))?;
    println!(
        "
The cluster is ready, after {}. Registries in it: {REGISTRY}, and 10.99.0.1:5001 with the login
team and open-sesame. Install the operator with the images from above:

  cargo xtask cluster run helm install anneal charts/anneal --namespace anneal-system \\
    --create-namespace --set image.repository={REGISTRY}/anneal/operator \\
    --set trainer.repository={REGISTRY}/anneal/trainer \\
    --set server.repository={REGISTRY}/anneal/server --set plainHttp={{{REGISTRY}}} \\
    --set image.tag=latest,trainer.tag=latest,server.tag=latest
  cargo xtask cluster run kubectl get finetuneworkspaces --all-namespaces --watch",
        shell::seconds(start.elapsed())
    );
    Ok(())
}

fn script(word: &str) -> Result<Command> {
    let mut command = Command::new(shell::workspace().join("tests/cluster/node/cluster.sh"));
    command.arg(word).arg(shell::cache()?.join("cluster")).arg(shell::cache()?.join("bin"));
    Ok(command)
}

/// Everything that the machine lacks, at once.
fn check() -> Result<()> {
    let script = shell::workspace().join("tests/cluster/node/cluster.sh");
    let lacks = shell::output(Command::new(script).arg("check"))?;
    if !lacks.is_empty() {
        bail!("this machine cannot run a cluster:\n{lacks}");
    }
    Ok(())
}
