//! Options of `anneal serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::names::parse_bytes;
use clap::Args;

use super::{OutputArgs, PrecisionArg, RegistryArgs, temperature};

/// Answer requests over HTTP, as OpenAI's API does: a base model and any number of adapters
///
/// What is served is written as a `ModelServer`, or given by --model and --adapters. The file is read again
/// while the server runs: an adapter that is added is loaded, and an image that moves to a new revision is
/// pulled by digest, verified, and served in place of the old one without a restart. A request names an
/// adapter as its model.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal serve -f server.yaml
  anneal serve --model base.gguf
  anneal serve --model base.gguf --adapters adapters.yaml --address 0.0.0.0:8000

server.yaml:
  apiVersion: anneal.dev/v1alpha1
  kind: ModelServer
  metadata: {name: smollm2}
  spec:
    baseModel: {path: models/SmolLM2-135M-Instruct}
    adapters:
      - {name: reviews, image: registry.example.com/team/reviews:v1}
      - {name: tickets, workspace: tickets}      # the result of `anneal run`, in .anneal/tickets

adapters.yaml has the `adapters` alone, each by `image` or `path`.")]
pub(crate) struct ServeArgs {
    /// The `ModelServer` as YAML. What its `limits` and `precision` say goes before the options here
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["model", "adapters", "name"])]
    pub(crate) filename: Option<PathBuf>,
    /// Base model: a folder, a GGUF file, hf:OWNER/NAME[@REVISION], oci:FOLDER[:TAG] or an image reference
    #[arg(long, value_name = "MODEL", required_unless_present = "filename")]
    pub(crate) model: Option<String>,
    /// The base model's name to clients. Without it, the last part of MODEL
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// File that declares adapters; it is followed while the server runs
    #[arg(long, value_name = "FILE")]
    pub(crate) adapters: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) address: SocketAddr,
    /// Where a controller tells which adapters to hold, with no key: let nobody else reach it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) control_address: Option<SocketAddr>,
    /// Digest of the base model's image: adapters that were trained on another one are refused. Of an image
    /// that is pulled it is known
    #[arg(long, value_name = "DIGEST")]
    pub(crate) base_digest: Option<String>,
    /// File of API keys, one on a line, or a folder of such files; without it everybody is let in
    #[arg(long, value_name = "FILE", env = "ANNEAL_API_KEYS_FILE", hide_env_values = true)]
    pub(crate) api_keys: Option<PathBuf>,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fp32)]
    pub(crate) precision: PrecisionArg,
    /// Hold the matrices of the linear layers as int8: a quarter of the memory of fp32, answers nearly the same
    #[arg(long)]
    pub(crate) int8: bool,
    /// Memory for keys and values, taken at the start
    #[arg(long, value_name = "BYTES", default_value = "1Gi", value_parser = parse_bytes)]
    pub(crate) cache_memory: u64,
    /// Memory for adapters; those that were used longest ago are read again when they are needed
    #[arg(long, value_name = "BYTES", default_value = "1Gi", value_parser = parse_bytes)]
    pub(crate) adapter_memory: u64,
    /// Disk for images of adapters that are not declared any more
    #[arg(long, value_name = "BYTES", default_value = "10Gi", value_parser = parse_bytes)]
    pub(crate) adapter_disk: u64,
    /// Largest image of an adapter that is pulled
    #[arg(long, value_name = "BYTES", default_value = "4Gi", value_parser = parse_bytes)]
    pub(crate) max_adapter: u64,
    /// Highest rank of an adapter
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) max_rank: i64,
    /// Answers that are made at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_sequences: u32,
    /// Answers that may wait beside them; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_waiting: u32,
    /// Tokens that go through the model at once
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) step_tokens: u32,
    /// Most tokens of prompt and answer together. Without it, what the model takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) context: Option<u32>,
    /// Seconds between two looks at adapters and registries
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

/// Talk to a base model and its adapters side by side
///
/// Every line is sent to the base model and to each adapter; each goes on with its own answers. `/new`
/// begins a new conversation, `/quit` or the end of the input ends it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal chat -f server.yaml
  anneal chat --model base.gguf --adapter .anneal/reviews --adapter other=registry.example.com/team/other:v1
  echo 'A joy to watch.' | anneal chat -f server.yaml --output json")]
pub(crate) struct ChatArgs {
    /// A `ModelServer` as YAML
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["model", "adapter"])]
    pub(crate) filename: Option<PathBuf>,
    /// Base model: a folder, a GGUF file, hf:OWNER/NAME[@REVISION], oci:FOLDER[:TAG] or an image reference
    #[arg(long, value_name = "MODEL", required_unless_present = "filename")]
    pub(crate) model: Option<String>,
    /// Adapter: a run's folder, an adapter's folder, oci:FOLDER[:TAG] or an image reference, with a name in
    /// front if wanted; may be given several times
    #[arg(long, value_name = "[NAME=]ADAPTER")]
    pub(crate) adapter: Vec<String>,
    /// System message in front of the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: u32,
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    pub(crate) temperature: f64,
    /// Start of the random choice: the same seed gives the same answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fp32)]
    pub(crate) precision: PrecisionArg,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
