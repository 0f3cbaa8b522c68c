//! The folder of a run: which one it is, what it holds, and that only one process works in it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use api::RunSpec;
use api::run_spec::Adapter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoints;
use crate::error::RunError;
use crate::event::{Compared, Finished, Sample};
use crate::files::{self, FileError};
use crate::session::{ADAPTER, WEIGHTS};

pub(crate) const SPEC: &str = "run.json";
pub(crate) const EVENTS: &str = "events.jsonl";
pub(crate) const CHECKPOINTS: &str = "checkpoints";
const OUTCOME: &str = "outcome.json";
const LOCK: &str = "run.lock";

/// The folder of one run, locked as long as this lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    spec: RunSpec,
    identity: String,
    /// Released by the system however this process ends.
    _lock: File,
}

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The run's folder.
    pub dir: PathBuf,
    pub finished: Finished,
    pub compared: Option<Compared>,
    pub samples: Vec<Sample>,
    /// Whether an earlier run had done all of it, and nothing was trained now.
    #[serde(skip)]
    pub reused: bool,
}

impl RunDir {
    /// Finds the folder for `spec`: the one it names, or one inside it where another run, of another
    /// specification, is already there. Where the run was begun before, how it was cut to fit into
    /// memory is taken over from then, since that decides the last bits of the losses; unless it is
    /// to take less memory now, as after it ran out of it.
    pub fn open(spec: &RunSpec) -> Result<Self, RunError> {
        let identity = identity(spec);
        let named = &spec.output.dir;
        let short = &identity[..8];
        let candidates = [
            named.clone(),
            named.join(&spec.revision),
            named.join(format!("{}-{short}", spec.revision)),
        ];
        for path in candidates {
            let stored = read_spec(&path.join(SPEC))?;
            if stored.as_ref().is_some_and(|stored| self::identity(stored) != identity) {
                continue;
            }
            files::create_folder(&path)?;
            let lock = lock(&path)?;
            let spec = match &stored {
                Some(stored) => cut_as_before(spec.clone(), stored),
                None => spec.clone(),
            };
            if stored.is_none_or(|stored| stored.training != spec.training) {
                let text = serde_json::to_vec_pretty(&spec).expect("a run specification is JSON");
                files::write_atomic(&path.join(SPEC), &text)?;
            }
            return Ok(Self { path, spec, identity, _lock: lock });
        }
        Err(RunError::configuration(
            format!("`{}` holds several runs of other specifications", named.display()),
            "name an empty output directory",
        ))
    }

    /// The specification to run: the caller's, with what was taken over.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn events(&self) -> PathBuf {
        self.path.join(EVENTS)
    }

    pub fn checkpoints(&self) -> Checkpoints {
        let keep = self.spec.checkpoints.keep;
        Checkpoints::new(self.path.join(CHECKPOINTS), self.identity.clone(), keep)
    }

    /// The folder of the result: the adapter's, or that of the whole model.
    pub fn result(&self) -> PathBuf {
        self.path.join(match self.spec.adapter {
            Adapter::Lora(_) => ADAPTER,
            Adapter::Full => "model",
        })
    }

    /// Copies what a saved session holds to the result's folder, in one step, with `more` files
    /// beside it, and returns the digest over all of them.
    pub fn publish(&self, saved: &Path, more: &[(String, Vec<u8>)]) -> Result<String, FileError> {
        let target = self.result();
        let partial = target.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(FileError::of("remove", &partial))?;
        }
        files::create_folder(&partial)?;
        let sources = match self.spec.adapter {
            Adapter::Lora(_) => files::files_below(&saved.join(ADAPTER))?,
            Adapter::Full => vec![saved.join(WEIGHTS)],
        };
        for source in sources {
            let to = partial.join(source.file_name().unwrap_or_default());
            fs::copy(&source, &to).map_err(FileError::of("write", &to))?;
        }
        for (name, bytes) in more {
            files::write_synced(&partial.join(name), bytes)?;
        }
        files::sync_tree(&partial)?;
        if target.exists() {
            fs::remove_dir_all(&target).map_err(FileError::of("remove", &target))?;
        }
        fs::rename(&partial, &target).map_err(FileError::of("write", &target))?;
        files::sync_folder(&self.path)?;
        folder_digest(&target)
    }

    /// What an earlier process left, if it finished and its files are as it left them.
    pub fn finished(&self) -> Option<Outcome> {
        let bytes = fs::read(self.path.join(OUTCOME)).ok()?;
        let outcome: Outcome = serde_json::from_slice(&bytes).ok()?;
        let digest = folder_digest(&self.result()).ok()?;
        let same = digest == outcome.finished.adapter_digest;
        same.then(|| Outcome { dir: self.path.clone(), reused: true, ..outcome })
    }

    pub fn write_outcome(&self, outcome: &Outcome) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(outcome).expect("an outcome is JSON");
        files::write_atomic(&self.path.join(OUTCOME), &text)
    }
}

/// The specification with the steps cut into micro-batches as they were, or smaller.
fn cut_as_before(mut spec: RunSpec, stored: &RunSpec) -> RunSpec {
    let (now, before) = (&mut spec.training, &stored.training);
    now.micro_batch_tokens = now.micro_batch_tokens.min(before.micro_batch_tokens);
    now.activation_checkpointing |= before.activation_checkpointing;
    spec
}

/// SHA-256 over what decides the result: all but where it is written and how often it is saved, what
/// it runs on, and how it is cut to fit into memory.
pub(crate) fn identity(spec: &RunSpec) -> String {
    let mut value = serde_json::to_value(spec).expect("a run specification is JSON");
    if let Some(fields) = value.as_object_mut() {
        fields.remove("output");
        fields.remove("compute");
        fields.remove("checkpoints");
    }
    for (part, field) in [
        ("baseModel", "path"),
        ("training", "microBatchTokens"),
        ("training", "activationCheckpointing"),
    ] {
        if let Some(fields) = value.get_mut(part).and_then(|part| part.as_object_mut()) {
            fields.remove(field);
        }
    }
    files::hex(&Sha256::digest(value.to_string()))
}

/// SHA-256 over names and contents of a folder's files: `sha256:…`.
pub fn folder_digest(folder: &Path) -> Result<String, FileError> {
    let mut hasher = Sha256::new();
    for path in files::files_below(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        let (digest, bytes) = files::sha256_of(&path)?;
        hasher.update(format!("{digest} {bytes} {name}\n"));
    }
    Ok(format!("sha256:{}", files::hex(&hasher.finalize())))
}

pub(crate) fn read_spec(path: &Path) -> Result<Option<RunSpec>, RunError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(FileError::of("read", path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        RunError::configuration(
            format!("cannot read the run specification `{}`: {error}", path.display()),
            "remove that folder, or name another output directory",
        )
    })
}

fn lock(folder: &Path) -> Result<File, RunError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(FileError::of("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::Busy(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(FileError::of("lock", &path)(source).into()),
    }
}
