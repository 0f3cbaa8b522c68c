//! What `serve` and `front` have in common: how adapters are fetched, who is let in, and how a server fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serve::ServeError;
use serve::adapters::AdapterOptions;
use serve::adapters::declared::Declaration;
use serve::engine::StartError;
use serve::http::HttpOptions;
use train::ExitClass;

use crate::args::ServingArgs;
use crate::failure::Failure;
use crate::sources;

/// How the adapters of a declaration are fetched; `cache` keeps their images.
pub(super) fn adapters(
    args: &ServingArgs,
    file: Option<Declaration>,
    cache: PathBuf,
) -> AdapterOptions {
    AdapterOptions {
        file,
        cache,
        every: Duration::from_secs(args.every),
        image_bytes: args.max_adapter,
        disk_bytes: args.adapter_disk,
        registry: sources::registry_options(&args.registry),
        plain_http: args.plain_http_hosts.clone(),
    }
}

/// Who is let in.
pub(super) fn http(args: &ServingArgs) -> Result<HttpOptions, Failure> {
    let keys = args.api_keys.as_deref().map(keys).transpose()?;
    Ok(HttpOptions { keys: keys.unwrap_or_default(), ..HttpOptions::default() })
}

/// Digests of the keys in a file, or in the files of a folder, as a secret is mounted.
fn keys(path: &Path) -> Result<BTreeSet<String>, Failure> {
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::configuration(format!("cannot read API keys {}: {error}", path.display()))
    };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| failed(path, &error))?;
        files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    }
    let mut digests = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| failed(&file, &error))?;
        let keys = text.lines().map(str::trim).filter(|line| !line.is_empty());
        digests.extend(keys.map(|key| oci::sha256(key.as_bytes())));
    }
    if digests.is_empty() {
        // An empty file must not open the door that it was meant to close.
        return Err(Failure::configuration(format!("{} holds no API key", path.display()))
            .with_hint("write one key on each line, or leave out --api-keys"));
    }
    Ok(digests)
}

pub(super) fn failure(error: &ServeError) -> Failure {
    let class = match error {
        ServeError::Files(_) | ServeError::Tokenizer(_) | ServeError::Listen { .. } => {
            ExitClass::Configuration
        }
        ServeError::Engine(StartError::Model(_) | StartError::Cache(_)) => ExitClass::Configuration,
        ServeError::Engine(_)
        | ServeError::Metrics(_)
        | ServeError::Client(_)
        | ServeError::Runtime { .. } => ExitClass::Internal,
    };
    Failure { hint: error.hint(), ..Failure::of(class, error) }
}
