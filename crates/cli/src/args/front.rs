//! Options of `anneal front`.

use std::path::PathBuf;

use clap::Args;

use super::{OutputArgs, ServingArgs};

/// Stand in front of a vLLM server: adapters come from registries while it runs, and are asked for by name
///
/// vLLM serves the base model; this pulls every declared adapter by digest, verifies it, and has vLLM load it
/// and let older revisions go. Requests are passed on with the name of the revision in place of the adapter's,
/// by which the answer tells what it was made with. Let vLLM listen where nobody else reaches it: whoever does
/// may make it load any file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve models/base --served-model-name base \\
      --host 127.0.0.1 --port 8001 --enable-lora --max-lora-rank 64 --max-loras 8 --max-cpu-loras 16
  anneal front --vllm http://127.0.0.1:8001 --model models/base --name base --adapters adapters.yaml

adapters.yaml:
  adapters:
    - {name: reviews, image: registry.example.com/team/reviews:v1}")]
pub(crate) struct FrontArgs {
    /// Address of vLLM's HTTP API
    #[arg(long, value_name = "URL")]
    pub(crate) vllm: String,
    /// Folder or GGUF file of the base model, whose layers adapters are held against: vLLM itself takes matrices
    /// of other shapes without a word
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// The base model's name: the one that vLLM was given as --served-model-name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// File that declares adapters; it is followed while the server runs
    #[arg(long, value_name = "FILE")]
    pub(crate) adapters: PathBuf,
    /// Requests that are passed on at the same time; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_requests: u32,
    /// Folder that adapters are kept in, at the same path where vLLM sees it. Without it, in the cache
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
