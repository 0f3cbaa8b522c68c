//! `anneal front`: adapters from registries for a vLLM server.

use std::path::absolute;
use std::time::Duration;

use serde_json::json;
use serve::front::{FrontOptions, FrontStarted};

use super::serving;
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
        address: args.serving.address,
        control: args.serving.control_address,
        vllm: args.vllm.clone(),
        model: args.model.clone(),
        name: args.name.clone(),
        base_digest: args.serving.base_digest.clone(),
        max_rank: args.serving.max_rank,
        requests: args.max_requests as usize,
        adapters: serving::adapters(&args.serving, Some(args.adapters.clone().into()), cache),
        http: serving::http(&args.serving)?,
        drain: Duration::from_secs(args.serving.drain),
    };
    let told = |started: FrontStarted| tell(started, args);
    serve::front::run(options, told).map_err(|error| serving::failure(&error))
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
