//! An OCI layout in a tar, with the name that the image gets where it is loaded.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use oci::{Image, Options, Target};
use serde_json::{Value, json};

/// The annotation in which containerd looks for an image's name.
const NAME: &str = "io.containerd.image.name";

/// Writes the archive. The same image and name give the same bytes.
pub(crate) fn write(image: &Image, file: &Path, reference: &str) -> Result<()> {
    let folder = file.parent().context("no folder for the archive")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let layout = file.with_extension("layout");
    let target = Target::layout(&layout, "latest");
    oci::blocking::push(image, &target, &Options::default())?;
    let index = layout.join("index.json");
    let mut content: Value = serde_json::from_slice(&fs::read(&index)?)?;
    content["manifests"][0]["annotations"][NAME] = json!(reference);
    fs::write(&index, content.to_string())?;
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg("-cf").arg(file).arg("-C").arg(&layout).arg(".");
    let status = tar.status().context("cannot start `tar`")?;
    ensure!(status.success(), "cannot write {}", file.display());
    fs::remove_dir_all(&layout).with_context(|| format!("cannot remove {}", layout.display()))
}
