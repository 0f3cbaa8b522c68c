//! Base models from the Hugging Face hub, or from the server that `HF_ENDPOINT` names.
//!
//! The revision is turned into a commit first and every file is taken at that commit, so that a branch
//! that moves meanwhile cannot mix two versions. Files go into the cache that Python's client uses; a
//! download that broke off goes on where it was.

use std::cell::Cell;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use api::names::HubRepository;
use api::run_spec::BaseModel;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use train::ExitClass;

/// Told what is being fetched, how far it is, and how much it is in all, in bytes.
pub type Tell<'a> = &'a dyn Fn(&str, u64, u64);

/// Why a repository could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HubError {
    pub class: ExitClass,
    pub message: String,
    /// What to do next, at a terminal.
    pub hint: &'static str,
}

/// Read where they are there; a model without the others can still be used.
const SMALL_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];

/// How often a download is started in all, and the wait before the second time; it doubles.
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// A repository at one commit.
struct Pinned {
    api: Api,
    cache: Cache,
    repo: Repo,
    named: String,
}

/// Fetches what is needed of a repository.
pub fn fetch(repository: &HubRepository, bytes: Tell<'_>) -> Result<BaseModel, HubError> {
    let id = repository.id();
    let named = format!("{id}@{}", repository.revision);
    let at = |revision: &str| Repo::with_revision(id.clone(), RepoType::Model, revision.to_owned());
    let api = client().map_err(|error| failure(&named, &error))?;
    let info =
        api.repo(at(&repository.revision)).info().map_err(|error| failure(&named, &error))?;
    let pinned = Pinned { api, cache: Cache::from_env(), repo: at(&info.sha), named };
    let names: Vec<String> = info
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .filter(|name| is_plain(name))
        .collect();
    let mut path = PathBuf::new();
    for name in wanted(&names, &pinned.named)? {
        let file = file(&pinned, &name, bytes)?;
        // A GGUF file is the model; of the others it is the folder they are in.
        path = if is_gguf(&file) { file } else { folder_of(&file, &name) };
    }
    Ok(BaseModel { path, reference: format!("hf:{id}@{}", info.sha), digest: Some(info.sha) })
}

fn client() -> Result<Api, ApiError> {
    let builder = ApiBuilder::from_env()
        .with_progress(false)
        .with_user_agent("anneal", env!("CARGO_PKG_VERSION"));
    match std::env::var("HF_TOKEN") {
        Ok(token) if !token.is_empty() => builder.with_token(Some(token)).build(),
        _ => builder.build(),
    }
}

/// The files of a model: safetensors with what belongs to them, or the one GGUF file.
fn wanted(names: &[String], named: &str) -> Result<Vec<String>, HubError> {
    let safetensors: Vec<&String> =
        names.iter().filter(|name| !name.contains('/') && is_weights(name)).collect();
    if !safetensors.is_empty() {
        let small = names.iter().filter(|name| SMALL_FILES.contains(&name.as_str()));
        return Ok(small.chain(safetensors).cloned().collect());
    }
    let gguf: Vec<&String> = names.iter().filter(|name| is_gguf(Path::new(name))).collect();
    match gguf.as_slice() {
        [one] => Ok(vec![(*one).clone()]),
        [] => Err(HubError {
            class: ExitClass::Configuration,
            message: format!("`{named}` holds neither safetensors nor a GGUF file"),
            hint: "name a repository of a model in one of these formats",
        }),
        several => Err(HubError {
            class: ExitClass::Configuration,
            message: format!("`{named}` holds {} GGUF files, and one is expected", several.len()),
            hint: "download the one that you want, and name it in spec.baseModel.path",
        }),
    }
}

/// Whether a name stays inside the repository's folder.
fn is_plain(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// `model.safetensors`, or a shard of it; not `consolidated.safetensors`, which is a second copy.
fn is_weights(name: &str) -> bool {
    let weights = Path::new(name).extension().is_some_and(|ending| ending == "safetensors");
    weights && name.starts_with("model")
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gguf")
}

/// The snapshot's folder: the file's path without its name in the repository.
fn folder_of(path: &Path, name: &str) -> PathBuf {
    let up = Path::new(name).components().count();
    path.ancestors().nth(up).unwrap_or(path).to_path_buf()
}

/// One file: from the cache, or downloaded. A download that broke off is taken up again.
fn file(repo: &Pinned, name: &str, bytes: Tell<'_>) -> Result<PathBuf, HubError> {
    if let Some(path) = repo.cache.repo(repo.repo.clone()).get(name) {
        return Ok(path);
    }
    let mut attempt = 1;
    loop {
        let error = match download(repo, name, bytes) {
            Ok(path) => return Ok(path),
            Err(error) => error,
        };
        if attempt == ATTEMPTS || status(&error).is_some_and(|status| status < 500) {
            return Err(failure(&repo.named, &error));
        }
        std::thread::sleep(FIRST_WAIT * 2_u32.pow(attempt - 1));
        attempt += 1;
    }
}

/// Downloads one file and compares its length, and its SHA-256 where the hub tells it.
fn download(repo: &Pinned, name: &str, bytes: Tell<'_>) -> Result<PathBuf, ApiError> {
    let total = Cell::new(0);
    let progress = Bytes { name: name.to_owned(), done: 0, total: &total, tell: bytes };
    let path = repo.api.repo(repo.repo.clone()).download_with_progress(name, progress)?;
    let blob = path.canonicalize()?;
    if blob.metadata()?.len() == total.get() && has_its_digest(&blob)? {
        return Ok(path);
    }
    std::fs::remove_file(&path)?;
    std::fs::remove_file(&blob)?;
    Err(ApiError::InvalidResume)
}

/// Large files are stored under their SHA-256; the others under a shorter digest, which says less.
fn has_its_digest(blob: &Path) -> Result<bool, ApiError> {
    let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.len() != 64 {
        return Ok(true);
    }
    let (digest, _) = train::files::sha256_of(blob).map_err(|error| error.source)?;
    Ok(digest == name)
}

/// Tells downloaded bytes as they come.
struct Bytes<'a> {
    name: String,
    done: u64,
    total: &'a Cell<u64>,
    tell: Tell<'a>,
}

impl Progress for Bytes<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        filename.clone_into(&mut self.name);
        self.done = 0;
        self.total.set(size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.tell)(&self.name, self.done, self.total.get());
    }

    fn finish(&mut self) {}
}

fn failure(named: &str, error: &ApiError) -> HubError {
    let (class, reason, hint) = match status(error) {
        Some(401 | 403) => (
            ExitClass::Refused,
            "the hub refuses access".to_owned(),
            "set HF_TOKEN to a token that may read this repository, and accept the model's terms \
             on its page",
        ),
        Some(404) => (
            ExitClass::Configuration,
            "the hub knows no such repository, revision or file".to_owned(),
            "check the spelling; a private repository needs HF_TOKEN",
        ),
        _ => (
            ExitClass::Io,
            error.to_string(),
            "run the same command again: the download goes on where it broke off; HF_ENDPOINT \
             names another server",
        ),
    };
    HubError { class, message: format!("cannot fetch base model `{named}`: {reason}"), hint }
}

/// The HTTP status that a request was answered with.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(request) => match request.as_ref() {
            ureq::Error::StatusCode(code) => Some(*code),
            _ => None,
        },
        ApiError::TooManyRetries(last) => status(last),
        _ => None,
    }
}
