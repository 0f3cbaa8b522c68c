//! Checkpoints in the registry: a tag beside the adapter's that always holds the newest one, for a run
//! whose folder is lost with its pod.
//!
//! Training never waits for a push: a checkpoint is linked into a folder of its own, and a thread sends
//! the newest of them. A push that fails is told and made up for by the next one.

mod pusher;

use std::path::{Path, PathBuf};

use api::RunSpec;
use api::workspace::CheckpointStatus;
use oci::image::DATA;
use oci::registry::RegistryError;
use oci::{Class, Folder, Options, PullOptions, Target};
use train::snapshot::{self, Refused};

pub use pusher::{Pusher, Told};

/// Ends the tag, after the run's name and revision.
const SUFFIX: &str = "checkpoint";
/// Annotation: the steps that were taken.
const STEP: &str = "anneal.dev/step";

/// The place of one run's checkpoints in a registry.
#[derive(Clone, Debug)]
pub struct Remote {
    target: Target,
    options: Options,
}

/// What was found there.
#[derive(Debug)]
pub enum Found {
    Nothing,
    /// The run's folder holds it now.
    Restored(CheckpointStatus),
    /// It cannot be used, and why; the run begins anew.
    Refused(String),
}

impl Remote {
    /// The tag beside the adapter's; none where the output is no registry.
    pub fn beside(output: &Target, spec: &RunSpec, options: &Options) -> Option<Self> {
        let Target::Registry(reference) = output else { return None };
        let (registry, repository) = (reference.registry(), reference.repository());
        let tag = format!("{}-{}-{SUFFIX}", spec.name, spec.revision);
        let target = format!("{registry}/{repository}:{tag}").parse().ok()?;
        Some(Self { target, options: options.clone() })
    }

    /// Brings the checkpoint into the run's folder, unless there is a run in it already. An error means
    /// that the registry may answer later: what it holds is worth waiting for.
    pub fn restore(&self, spec: &RunSpec) -> Result<Found, oci::Error> {
        if !snapshot::is_wanted(spec) {
            return Ok(Found::Nothing);
        }
        let digest = match oci::blocking::resolve(&self.target, &self.options) {
            Ok(digest) => digest,
            Err(oci::Error::Registry(RegistryError::NotFound { .. })) => return Ok(Found::Nothing),
            Err(error) => return given_up(error),
        };
        let folder = beside(&spec.output.dir, "restored");
        // What an attempt left that was killed here.
        let _ = std::fs::remove_dir_all(&folder);
        let at = self.target.at_digest(&digest);
        let pulled = oci::blocking::pull(&at, &folder, &PullOptions::default(), &self.options);
        if let Err(error) = pulled {
            return given_up(error);
        }
        let restored = snapshot::restore(&folder, spec);
        let _ = std::fs::remove_dir_all(&folder);
        Ok(match restored {
            Ok(step) => Found::Restored(self.status(step, digest)),
            Err(refused @ (Refused::Foreign | Refused::Damaged(_) | Refused::File(_))) => {
                Found::Refused(format!("{}: {refused}", self.target))
            }
        })
    }

    /// Sends a folder that [`snapshot::take`] made.
    fn push(&self, step: u64, folder: &Path) -> Result<CheckpointStatus, oci::Error> {
        let annotations = [(STEP.to_owned(), step.to_string())];
        let folders = [Folder { root: DATA, path: folder }];
        let image = oci::image_from_dirs(&folders, &annotations.into())?;
        let pushed = oci::blocking::push(&image, &self.target, &self.options)?;
        Ok(self.status(step, pushed.digest))
    }

    /// Takes one out of the registry. Many registries do not let anybody: then it stays.
    fn remove(&self, digest: &str) {
        let once = Options { attempts: 1, ..self.options.clone() };
        if let Err(error) = oci::blocking::remove(&self.target, digest, &once) {
            tracing::info!(%error, "an old checkpoint stays in the registry");
        }
    }

    fn status(&self, step: u64, digest: String) -> CheckpointStatus {
        CheckpointStatus { image: self.target.to_string(), digest, step }
    }
}

/// A run begins anew where the checkpoint is of no use, and not where the registry is.
fn given_up(error: oci::Error) -> Result<Found, oci::Error> {
    match error.class() {
        Class::MayPass => Err(error),
        Class::Input | Class::Refused => Ok(Found::Refused(error.to_string())),
    }
}

/// A hidden folder beside the run's, on the same file system.
fn beside(dir: &Path, what: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!(".{name}.{what}"))
}
