//! A run's state as a folder that can be carried to another machine: the newest checkpoint, the best
//! one, the events so far and the specification.
//!
//! [`take`] makes one beside a run that goes on; [`restore`] puts it where a run of the same
//! specification will look for its own state, after holding every file against the digests.

use std::fs;
use std::path::{Path, PathBuf};

use api::RunSpec;

use crate::checkpoint::{Checkpoint, Checkpoints, STATE, State};
use crate::files::{self, FileError};
use crate::run_dir::{self, CHECKPOINTS, EVENTS, SPEC};

/// Why a folder is not the state of the run that is about to start.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It was made by a run of another specification.
    #[error("it belongs to a run with another specification")]
    Foreign,
    /// It is not whole.
    #[error("{0}")]
    Damaged(String),
    /// The folder could not be read, or the run's own not written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Makes the folder `into` from the run that wrote the checkpoint `saved`. Files of checkpoints never
/// change once they are named, so they are linked and not copied.
pub fn take(saved: &Path, into: &Path) -> Result<(), FileError> {
    let run = saved.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    if into.exists() {
        fs::remove_dir_all(into).map_err(FileError::of("remove", into))?;
    }
    let checkpoints = into.join(CHECKPOINTS);
    files::create_folder(&checkpoints)?;
    for path in [Some(saved.to_owned()), best_beside(saved)].into_iter().flatten() {
        let to = checkpoints.join(path.file_name().unwrap_or_default());
        if !to.exists() {
            link_folder(&path, &to)?;
        }
    }
    for name in [SPEC, EVENTS] {
        let (from, to) = (run.join(name), into.join(name));
        fs::copy(&from, &to).map_err(FileError::of("write", &to))?;
    }
    Ok(())
}

/// The best checkpoint so far, if it is another one and still there.
fn best_beside(saved: &Path) -> Option<PathBuf> {
    let state: State = serde_json::from_slice(&fs::read(saved.join(STATE)).ok()?).ok()?;
    let best = Checkpoints::name(state.best?.step);
    Some(saved.with_file_name(best)).filter(|path| path.is_dir() && path != saved)
}

fn link_folder(from: &Path, to: &Path) -> Result<(), FileError> {
    for path in files::files_below(from)? {
        let target = to.join(path.strip_prefix(from).unwrap_or(&path));
        files::create_folder(target.parent().unwrap_or(to))?;
        fs::hard_link(&path, &target)
            .or_else(|_| fs::copy(&path, &target).map(drop))
            .map_err(FileError::of("write", &target))?;
    }
    Ok(())
}

/// Whether the run of `spec` would begin with its first step: its folder holds nothing of it yet.
pub fn is_wanted(spec: &RunSpec) -> bool {
    !spec.output.dir.join(SPEC).exists()
}

/// Moves the state in `from` to where the run of `spec` goes on from it, and says after which step.
pub fn restore(from: &Path, spec: &RunSpec) -> Result<u64, Refused> {
    let stored = run_dir::read_spec(&from.join(SPEC))
        .map_err(|error| Refused::Damaged(error.to_string()))?
        .ok_or_else(|| Refused::Damaged(format!("`{SPEC}` is missing")))?;
    let identity = run_dir::identity(spec);
    if run_dir::identity(&stored) != identity {
        return Err(Refused::Foreign);
    }
    let checkpoints = Checkpoints::new(from.join(CHECKPOINTS), identity, 1);
    let (found, skipped) = checkpoints.newest()?;
    let Some(Checkpoint { state, .. }) = found else {
        let why = skipped.into_iter().next().map(|skipped| skipped.why);
        return Err(Refused::Damaged(why.unwrap_or_else(|| "it holds no checkpoint".to_owned())));
    };
    let to = &spec.output.dir;
    files::create_folder(to)?;
    // The specification last: it is what says that the folder holds a run.
    for name in [CHECKPOINTS, EVENTS, SPEC] {
        let target = to.join(name);
        if target.is_dir() {
            fs::remove_dir_all(&target).map_err(FileError::of("remove", &target))?;
        }
        fs::rename(from.join(name), &target).map_err(FileError::of("write", &target))?;
    }
    Ok(state.step)
}
