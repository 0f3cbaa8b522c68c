//! Options of `anneal serve`.

use std::path::PathBuf;

use api::names::parse_bytes;
use clap::Args;

use super::{OutputArgs, PrecisionArg, RegistryArgs, ServingArgs, temperature};

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
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
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
