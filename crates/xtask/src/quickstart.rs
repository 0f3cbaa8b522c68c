//! `cargo xtask quickstart`: set-up, data, release build, and the main job.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{review_data, setup, shell};

/// The workspace that the quickstart runs.
const WORKSPACE: &str = "deploy/samples/quickstart.yaml";

/// Sets up and builds, then becomes `anneal run`, so that Ctrl-C reaches it and nothing else.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    setup::run()?;
    shell::stage("quickstart data", data)?;
    shell::stage("release build of anneal (minutes the first time)", || {
        shell::run(shell::cargo().args(["build", "--release", "--package", "cli"]))
    })?;
    println!("    set up in {}", shell::seconds(start.elapsed()));
    println!("==> anneal run -f {WORKSPACE}");
    let error = Command::new(shell::target_dir().join("release").join("anneal"))
        .args(["run", "-f", WORKSPACE])
        .current_dir(shell::workspace())
        .exec();
    Err(error).context("cannot start target/release/anneal")
}

/// What the workspace names: training and test examples, and a link to the base model.
fn data() -> Result<()> {
    let folder = shell::workspace().join(".anneal");
    let model = setup::base_model()?;
    review_data::write(&setup::reviews()?, &folder.join("data/reviews"))?;
    fs::create_dir_all(folder.join("models"))?;
    link(&model, &folder.join("models").join(model.file_name().context("a file has a name")?))
}

/// A name in the checkout for a file of the cache.
fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let fresh = link.with_extension("new");
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh)?;
    fs::rename(&fresh, link).with_context(|| format!("cannot write {}", link.display()))
}
