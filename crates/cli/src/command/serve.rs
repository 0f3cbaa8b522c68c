//! `anneal serve`: a base model and its adapters over HTTP.

use std::time::Duration;

use api::model_server::{ServingLimits, Weights};
use serde_json::json;
use serve::adapters::declared::Declaration;
use serve::engine::EngineOptions;
use serve::{ServeOptions, Started};
use tch::{Device, Kind};

use super::serving;
use crate::args::{Output, PrecisionArg, ServeArgs};
use crate::failure::Failure;
use crate::sources::LocalModel;
use crate::{say, server_file, sources};

/// Serves until the process is told to end.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let Wanted { model, name, adapters, precision, int8, limits } = wanted(args)?;
    // Only digests of images are comparable; a commit of a hub names no image.
    let pulled = model.digest.filter(|digest| digest.starts_with("sha256:"));
    let base_digest = pulled.or_else(|| args.serving.base_digest.clone());
    let options = ServeOptions {
        address: args.serving.address,
        control: args.serving.control_address,
        model: model.path,
        name,
        base_digest,
        engine: EngineOptions { int8, ..engine(args, precision, &limits) },
        adapters: serving::adapters(&args.serving, adapters, sources::cache()?.join("adapters")),
        http: serving::http(&args.serving)?,
        drain: Duration::from_secs(args.serving.drain),
    };
    let told = |started: &Started| tell(started, args.output.output);
    serve::run(options, told).map_err(|error| serving::failure(&error))
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
            model: sources::server_model(&server.spec.base_model, &args.serving.registry, &tell)?,
            name: api::model_server::base_name(&server),
            adapters: Some(Declaration { path: file.clone(), read: server_file::declared }),
            precision: server.spec.precision.map_or(args.precision, PrecisionArg::from),
            int8: args.int8 || server.spec.weights == Some(Weights::Int8),
            limits: server.spec.limits.unwrap_or_default(),
        });
    }
    let model = args.model.as_deref().unwrap_or_default();
    Ok(Wanted {
        model: sources::named_model(model, &args.serving.registry, &tell)?,
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
        max_rank: limits.max_rank.map_or(args.serving.max_rank, i64::from),
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
