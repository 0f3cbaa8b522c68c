//! `cargo xtask images`: images of operator, trainer and server, made of a release build without Docker.
//!
//! The work is crate `images`'s, which is built here: this program stays one that builds in seconds.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder of the layouts [default: images, beside the build]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Write archives in place of that, for `kind load image-archive` and `minikube image load`
    #[arg(long, value_name = "FOLDER")]
    archive: Option<PathBuf>,
    /// Push to a registry in place of that: PREFIX/operator, PREFIX/trainer and PREFIX/server
    #[arg(long, value_name = "PREFIX")]
    push: Option<String>,
    #[arg(long, default_value = "latest")]
    tag: String,
    /// Speak http to the registry
    #[arg(long)]
    plain_http: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    build()?;
    let mut command = Command::new(builds().join("images"));
    command.args(["all", "--tag", &options.tag]);
    if let Some(prefix) = &options.push {
        command.args(["--push", prefix]);
    }
    if let Some(folder) = &options.archive {
        command.arg("--archive").arg(folder);
    }
    let output = options.output.clone();
    let elsewhere = options.push.is_some() || options.archive.is_some();
    let beside = || (!elsewhere).then(|| shell::target_dir().join("images"));
    if let Some(folder) = output.or_else(beside) {
        command.arg("--output").arg(folder);
    }
    if options.plain_http {
        command.arg("--plain-http");
    }
    shell::run(&mut command)
}

/// Builds what the images consist of, and what makes them.
pub(crate) fn build() -> Result<()> {
    let packages = ["operator", "trainer-image", "cli", "images"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    shell::stage("operator, trainer and server", || {
        shell::run(shell::cargo().args(["build", "--release", "--quiet", "--bins"]).args(packages))
    })
}

/// Where cargo puts a release build.
pub(crate) fn builds() -> PathBuf {
    shell::target_dir().join("release")
}
