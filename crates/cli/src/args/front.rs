//! Options of `anneal front`.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::names::parse_bytes;
use clap::Args;

use super::{OutputArgs, RegistryArgs};

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
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) address: SocketAddr,
    /// Where a controller tells which adapters to hold, with no key: let nobody else reach it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) control_address: Option<SocketAddr>,
    /// Digest of the base model's image: adapters that were trained on another one are refused
    #[arg(long, value_name = "DIGEST")]
    pub(crate) base_digest: Option<String>,
    /// File of API keys, one on a line, or a folder of such files; without it everybody is let in
    #[arg(long, value_name = "FILE", env = "ANNEAL_API_KEYS_FILE", hide_env_values = true)]
    pub(crate) api_keys: Option<PathBuf>,
    /// Highest rank of an adapter: the one that vLLM was given as --max-lora-rank
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) max_rank: i64,
    /// Requests that are passed on at the same time; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_requests: u32,
    /// Folder that adapters are kept in, at the same path where vLLM sees it. Without it, in the cache
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// Disk for images of adapters that are not declared any more
    #[arg(long, value_name = "BYTES", default_value = "10Gi", value_parser = parse_bytes)]
    pub(crate) adapter_disk: u64,
    /// Largest image of an adapter that is pulled
    #[arg(long, value_name = "BYTES", default_value = "4Gi", value_parser = parse_bytes)]
    pub(crate) max_adapter: u64,
    /// Seconds between two looks at adapters, registries and vLLM
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
    /// Seconds that running answers get when the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub(crate) drain: u64,
    /// Registries that adapters are pulled from over http, as host:port
    #[arg(
        long,
        value_name = "HOSTS",
        env = "ANNEAL_PLAIN_HTTP",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) plain_http_hosts: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
