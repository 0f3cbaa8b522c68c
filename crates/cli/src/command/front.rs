//! `anneal front`: adapters from registries for a vLLM server.

use std::path::absolute;
use std::time::Duration;

use serde_json::json;
use serve::adapters::AdapterOptions;
use serve::front::{FrontOptions, FrontStarted};
use serve::http::HttpOptions;

use super::serve::{failure, keys};
use crate::args::{FrontArgs, Output};
use crate::failure::Failure;
use crate::{say, sources};

/// Serves until the process is told to end.
pub(crate) fn run(args: &FrontArgs) -> Result<(), Failure> {
    let cache = match &args.cache {
        Some(cache) => cache.clone(),
        None => sources::cache()?.join("adapters"),
    };
    // vLLM is told the path, and has a working folder of its own.
    let cache = absolute(&cache).map_err(|error| {
        Failure::configuration(format!("cannot find {}: {error}", cache.display()))
    })?;
    let options = FrontOptions {
        address: args.address,
        control: args.control_address,
        vllm: args.vllm.clone(),
        model: args.model.clone(),
        name: args.name.clone(),
        base_digest: args.base_digest.clone(),
        max_rank: args.max_rank,
        requests: args.max_requests as usize,
        adapters: AdapterOptions {
            file: Some(args.adapters.clone().into()),
            cache,
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
    let told = |started: FrontStarted| tell(started, args);
    serve::front::run(options, told).map_err(|error| failure(&error))
}

fn tell(FrontStarted { address, control }: FrontStarted, args: &FrontArgs) {
    match args.output.output {
        Output::Text => say::say!("serving {} of {} at http://{address}/v1", args.name, args.vllm),
        Output::Json => say::json_line(&json!({
            "address": address.to_string(),
            "controlAddress": control.map(|control| control.to_string()),
            "model": args.name,
            "vllm": args.vllm,
        })),
    }
}
