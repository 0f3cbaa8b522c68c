//! `anneal serve`: a base model and its adapters over HTTP.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use api::model_server::{ServingLimits, Weights};
use serde_json::json;
use serve::adapters::AdapterOptions;
use serve::adapters::declared::Declaration;
use serve::engine::{EngineOptions, StartError};
use serve::http::HttpOptions;
use serve::{ServeError, ServeOptions, Started};
use tch::{Device, Kind};
use train::ExitClass;

use crate::args::{Output, PrecisionArg, ServeArgs};
use crate::failure::Failure;
use crate::sources::LocalModel;
use crate::{say, server_file, sources};

/// Serves until the process is told to end.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let Wanted { model, name, adapters, precision, int8, limits } = wanted(args)?;
    // Only digests of images are comparable; a commit of a hub names no image.
    let pulled = model.digest.filter(|digest| digest.starts_with("sha256:"));
    let base_digest = pulled.or_else(|| args.base_digest.clone());
    let options = ServeOptions {
        address: args.address,
        control: args.control_address,
        model: model.path,
        name,
        base_digest,
        engine: EngineOptions { int8, ..engine(args, precision, &limits) },
        adapters: AdapterOptions {
            file: adapters,
            cache: sources::cache()?.join("adapters"),
            every: Duration::from_secs(args.every),
            image_bytes: args.max_adapter,
            disk_bytes: args.adapter_disk,
            registry: sources::registry_options(&args.registry),
            plain_http: args.plain_http_hosts.clone(),
        },
        http: HttpOptions {
            keys: args.api_keys.as_deref().map(keys).transpose()?.unwrap_or_default(),
            ..HttpOptions::default()
        },
        drain: Duration::from_secs(args.drain),
    };
    serve::run(options, |started| tell(started, args.output.output)).map_err(|e| failure(&e))
}

/// What is to be served: by a file, or by options.
struct Wanted {
    model: LocalModel,
    name: String,
    adapters: Option<Declaration>,
    precision: PrecisionArg,
    int8: bool,
    limits: ServingLimits,
}

fn wanted(args: &ServeArgs) -> Result<Wanted, Failure> {
    let tell = |_: &str, _: u64, _: u64| {};
    if let Some(file) = &args.filename {
        let server = server_file::read(file)?;
        return Ok(Wanted {
            model: sources::server_model(&server.spec.base_model, &args.registry, &tell)?,
            name: api::model_server::base_name(&server),
            adapters: Some(Declaration { path: file.clone(), read: server_file::declared }),
            precision: server.spec.precision.map_or(args.precision, PrecisionArg::from),
            int8: args.int8 || server.spec.weights == Some(Weights::Int8),
            limits: server.spec.limits.unwrap_or_default(),
        });
    }
    let model = args.model.as_deref().unwrap_or_default();
    Ok(Wanted {
        model: sources::named_model(model, &args.registry, &tell)?,
        name: args.name.clone().unwrap_or_else(|| short(model)),
        adapters: args.adapters.clone().map(Declaration::from),
        precision: args.precision,
        int8: args.int8,
        limits: ServingLimits::default(),
    })
}

/// The engine's set-up; limits of a file go before options.
fn engine(args: &ServeArgs, precision: PrecisionArg, limits: &ServingLimits) -> EngineOptions {
    let bytes = |text: &Option<String>, option: u64| {
        text.as_deref().and_then(|text| api::names::parse_bytes(text).ok()).unwrap_or(option)
    };
    EngineOptions {
        kind: kind(precision),
        int8: false,
        device: Device::cuda_if_available(),
        cache_bytes: bytes(&limits.cache_memory, args.cache_memory),
        adapter_bytes: bytes(&limits.adapter_memory, args.adapter_memory),
        max_rank: limits.max_rank.map_or(args.max_rank, i64::from),
        sequences: limits.sequences.unwrap_or(args.max_sequences) as usize,
        waiting: limits.waiting.unwrap_or(args.max_waiting) as usize,
        step_tokens: args.step_tokens as usize,
        context: limits.context.or(args.context).map(|context| context as usize),
    }
}

pub(super) fn kind(precision: PrecisionArg) -> Kind {
    match precision {
        PrecisionArg::Fp32 => Kind::Float,
        PrecisionArg::Bf16 => Kind::BFloat16,
    }
}

/// The last part of a path or reference, without what tells a version.
pub(super) fn short(model: &str) -> String {
    let name = model.trim_end_matches('/').rsplit(['/']).next().unwrap_or(model);
    let name = name.split(['@', ':']).next().unwrap_or(name);
    let name = name.strip_suffix(".gguf").unwrap_or(name);
    if name.is_empty() { "base".to_owned() } else { name.to_owned() }
}

/// Digests of the keys in a file, or in the files of a folder, as a secret is mounted.
pub(super) fn keys(path: &Path) -> Result<BTreeSet<String>, Failure> {
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

fn tell(started: &Started, output: Output) {
    let Started { address, control, name, context, cache_bytes } = started;
    match output {
        Output::Text => {
            say::say!("serving {name} at http://{address}/v1, up to {context} tokens a request");
        }
        Output::Json => say::json_line(&json!({
            "address": address.to_string(),
            "controlAddress": control.map(|control| control.to_string()),
            "model": name,
            "context": context,
            "cacheBytes": cache_bytes,
        })),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_short_names() {
        for (model, name) in [
            ("models/base.gguf", "base"),
            ("hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", "SmolLM2-135M-Instruct"),
            ("registry.example.com/team/base:v1", "base"),
            ("oci:./images:v1", "images"),
            ("/", "base"),
        ] {
            assert_eq!(short(model), name, "{model}");
        }
    }
}
