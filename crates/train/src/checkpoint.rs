//! Checkpoints: all that a run needs to go on as if it had never stopped.
//!
//! Each is a folder `step-00000012` with the trained weights, the optimizer's state and
//! `state.json`, and a `manifest.json` with the SHA-256 of every file. It is written under another
//! name, synced and then renamed, so that a folder of this name is whole; a disk that loses data
//! afterwards is found out by the digests, and the checkpoint before it is used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::LoaderState;
use crate::files::{self, FileError};

const MANIFEST: &str = "manifest.json";
pub(crate) const STATE: &str = "state.json";
const UNFINISHED: &str = "unfinished-";
const VERSION: u32 = 1;

/// What a run knows beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// Where the loader goes on.
    pub loader: LoaderState,
    pub best: Option<Best>,
    /// The last step that the validation split was scored at.
    pub validated: Option<u64>,
    /// Validations since the loss last fell enough.
    pub without_improvement: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, without validation and checkpoints.
    pub seconds: f64,
    /// The time that the chat template was told, in seconds since 1970: one that writes the date has to
    /// give the same text on another day.
    #[serde(default)]
    pub told_time: Option<i64>,
    /// Length of `events.jsonl` in bytes.
    pub events: u64,
}

/// The step with the lowest validation loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Best {
    pub step: u64,
    pub loss: f64,
}

/// A whole checkpoint that was found on the disk.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub state: State,
}

/// A checkpoint that cannot be used, and why.
#[derive(Debug)]
pub struct Skipped {
    pub path: PathBuf,
    pub why: String,
}

/// The folder that holds the checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    root: PathBuf,
    /// Digest of the run specification: checkpoints of another run are not used.
    run: String,
    /// How many are kept beside the best one.
    keep: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    version: u32,
    run: String,
    step: u64,
    /// By path inside the checkpoint, with `/`.
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Checkpoints {
    pub fn new(root: PathBuf, run: String, keep: usize) -> Self {
        Self { root, run, keep: keep.max(1) }
    }

    /// Where the checkpoint after `step` steps is.
    pub fn path(&self, step: u64) -> PathBuf {
        self.root.join(Self::name(step))
    }

    /// The folder's name of the checkpoint after `step` steps.
    pub fn name(step: u64) -> String {
        format!("step-{step:08}")
    }

    /// Writes a checkpoint: `write` puts the tensors into the folder that it is given. Older ones
    /// beyond the number to keep are removed afterwards; on failure they all stay.
    pub fn save<E: From<FileError>>(
        &self,
        state: &State,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let unfinished = self.root.join(format!("{UNFINISHED}{:08}", state.step));
        let path = self.path(state.step);
        let saved = self
            .write(state, &unfinished, write)
            .and_then(|()| replace(&unfinished, &path).map_err(E::from));
        if saved.is_err() {
            // The disk may be full: what cannot be used should not take up room. The first error
            // is the one that counts.
            let _ = fs::remove_dir_all(&unfinished);
        }
        saved?;
        self.prune(state)?;
        Ok(path)
    }

    fn write<E: From<FileError>>(
        &self,
        state: &State,
        folder: &Path,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(FileError::of("remove", folder))?;
        }
        files::create_folder(folder)?;
        write(folder)?;
        files::write_synced(&folder.join(STATE), &json(state))?;
        let manifest = Manifest {
            version: VERSION,
            run: self.run.clone(),
            step: state.step,
            files: entries(folder)?,
        };
        files::write_synced(&folder.join(MANIFEST), &json(&manifest))?;
        files::sync_tree(folder)?;
        Ok(())
    }

    /// The newest checkpoint that is whole, and those newer ones that are not.
    pub fn newest(&self) -> Result<(Option<Checkpoint>, Vec<Skipped>), FileError> {
        let mut skipped = Vec::new();
        for path in self.all()?.into_iter().rev() {
            match self.check(&path) {
                Ok(state) => return Ok((Some(Checkpoint { path, state }), skipped)),
                Err(why) => skipped.push(Skipped { path, why }),
            }
        }
        Ok((None, skipped))
    }

    /// Takes a checkpoint that cannot be used out of the way, under a name that says so.
    pub fn set_aside(&self, skipped: &Skipped) -> Result<(), FileError> {
        let mut name = skipped.path.file_name().unwrap_or_default().to_owned();
        name.push(".damaged");
        replace(&skipped.path, &skipped.path.with_file_name(name))
    }

    /// Reads a checkpoint's state after holding every file against the manifest; else says why not.
    pub fn check(&self, path: &Path) -> Result<State, String> {
        let manifest: Manifest = read_json(&path.join(MANIFEST))?;
        if manifest.version != VERSION {
            return Err(format!("it is of version {}, this is {VERSION}", manifest.version));
        }
        if manifest.run != self.run {
            return Err("it belongs to a run with another specification".to_owned());
        }
        let mut found = entries(path).map_err(|error| error.to_string())?;
        for (name, entry) in &manifest.files {
            match found.remove(name) {
                None => return Err(format!("`{name}` is missing")),
                Some(found) if found.bytes != entry.bytes => {
                    let (is, was) = (found.bytes, entry.bytes);
                    return Err(format!("`{name}` has {is} bytes and not {was}"));
                }
                Some(found) if found != *entry => {
                    return Err(format!("`{name}` has changed: its SHA-256 differs"));
                }
                Some(_) => {}
            }
        }
        read_json(&path.join(STATE))
    }

    /// Removes all but the newest ones and the best.
    fn prune(&self, state: &State) -> Result<(), FileError> {
        let best = state.best.map(|best| self.path(best.step));
        let all = self.all()?;
        let surplus = all.len().saturating_sub(self.keep);
        for path in all.iter().take(surplus).filter(|path| Some(*path) != best.as_ref()) {
            fs::remove_dir_all(path).map_err(FileError::of("remove", path))?;
        }
        Ok(())
    }

    /// Folders named like checkpoints, by step.
    fn all(&self) -> Result<Vec<PathBuf>, FileError> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let reading = FileError::of("read folder", &self.root);
        let entries: Vec<_> =
            fs::read_dir(&self.root).and_then(Iterator::collect).map_err(reading)?;
        let mut found: Vec<PathBuf> =
            entries.iter().map(fs::DirEntry::path).filter(|path| is_checkpoint(path)).collect();
        found.sort();
        Ok(found)
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("step-"))
        .is_some_and(|step| step.len() == 8 && step.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Renames a folder, in place of one that may be there.
fn replace(from: &Path, to: &Path) -> Result<(), FileError> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(FileError::of("remove", to))?;
    }
    fs::rename(from, to).map_err(FileError::of("write", to))?;
    files::sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// Size and digest of every file below `folder` but the manifest.
fn entries(folder: &Path) -> Result<BTreeMap<String, Entry>, FileError> {
    let mut entries = BTreeMap::new();
    for path in files::files_below(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        if name != MANIFEST {
            let (sha256, bytes) = files::sha256_of(&path)?;
            entries.insert(name, Entry { bytes, sha256 });
        }
    }
    Ok(entries)
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("our own types have string keys")
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let bytes = fs::read(path).map_err(|error| FileError::of("read", path)(error).to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("`{}`: {error}", path.display()))
}
