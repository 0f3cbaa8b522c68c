//! What can be typed: commands, options and the help that teaches them.

mod front;
mod serve;
mod serving;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::front::FrontArgs;
pub(crate) use self::serve::{ChatArgs, ServeArgs};
pub(crate) use self::serving::ServingArgs;

const ABOUT: &str = "Fine-tune language models from one YAML file, on this machine";

const EXAMPLES: &str = "\
Exit codes:
  0  done                             11  a registry or a credential was refused
  1  a mistake of ours                12  out of memory
  2  the command line is wrong        13  input or output that may work the next time
 10  your data or configuration       14  stopped by Ctrl-C, with a checkpoint written
                                    130  ended at once, by a second Ctrl-C

Examples:
  anneal plan -f tune.yaml            What would happen: choices with reasons, memory, time
  anneal run -f tune.yaml             Train; run it again to go on after an interruption
  anneal generate --model base.gguf --adapter .anneal/reviews --prompt 'Hello'
  anneal push .anneal/reviews registry.example.com/team/reviews:v1";

#[derive(Debug, Parser)]
#[command(name = "anneal", version, about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Anneal {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Validate(ValidateArgs),
    Plan(PlanArgs),
    Generate(GenerateArgs),
    Serve(ServeArgs),
    Front(FrontArgs),
    #[command(hide = true)]
    Link(LinkArgs),
    Chat(ChatArgs),
    Push(PushArgs),
    Pull(PullArgs),
}

/// Make a link to the model in an image that is mounted, for programs that take a folder's path alone
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// Where the image is mounted
    pub(crate) mount: PathBuf,
    /// The link to make
    pub(crate) link: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Fine-tune the model that a workspace describes, and package the adapter
///
/// Reads all data and tells every fault before training, trains with checkpoints, scores the base
/// and the tuned model on the test examples, and writes the adapter as an OCI image.
///
/// The same command goes on after an interruption of any kind. Ctrl-C (or SIGTERM) ends the run after
/// the step it is at, with a checkpoint and exit code 14. A second one ends it at once, with exit code
/// 130: the run goes on from the checkpoint before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal run -f deploy/samples/quickstart.yaml
  anneal run -f tune.yaml --output json > events.jsonl    One event per line, for scripts")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Tell every fault of a workspace and its data, without training
///
/// Checks the YAML (unknown, missing, mistyped and contradictory fields), that the base model can be
/// read, and each example of the data. Faults come with file and line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal validate -f tune.yaml
  anneal validate -f tune.yaml --yaml-only                Needs neither model nor data
  anneal validate -f tune.yaml --output json | jq '.faults[].field'")]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArgs,
    /// Check the YAML alone: read neither model nor data
    #[arg(long)]
    pub(crate) yaml_only: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Show what a run would do: choices with their reasons, data, memory and time
///
/// Resolves every hyperparameter that the workspace leaves open, from the sizes of model and data,
/// and says why. Reads model and data; trains nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal plan -f tune.yaml
  anneal plan -f tune.yaml --output json | jq '.runSpec.training.learningRate'")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArgs,
    /// File with GPU products beside the built-in ones, as the operator's option of the same name takes it
    #[arg(long, value_name = "FILE")]
    pub(crate) gpu_catalogue: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Let a base model, or a base model with an adapter, answer a prompt
///
/// The prompt becomes a chat by the model's own template, and the answer appears as it is made.
/// Without --prompt it is read from the standard input.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal generate --model base.gguf --prompt 'Why is the sky blue?'
  anneal generate --adapter .anneal/reviews --prompt 'A joy to watch.'
  anneal generate --model hf:HuggingFaceTB/SmolLM2-135M-Instruct < prompt.txt
  anneal generate --adapter registry.example.com/team/reviews:v1 --temperature 0.7")]
pub(crate) struct GenerateArgs {
    /// Base model: a folder, a GGUF file, hf:OWNER/NAME[@REVISION], oci:FOLDER[:TAG] or an image reference.
    /// Without it, the one that the adapter was trained on
    #[arg(long, value_name = "MODEL", required_unless_present = "adapter")]
    pub(crate) model: Option<String>,
    /// Adapter: a run's folder, an adapter's folder, oci:FOLDER[:TAG] or an image reference
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: Option<String>,
    /// What to answer; `-` or nothing reads the standard input
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// System message in front of the prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: u32,
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    pub(crate) temperature: f64,
    /// Draw among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = top_p)]
    pub(crate) top_p: f64,
    /// Start of the random choice: the same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Print the answer when it is complete, and not token by token
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fp32)]
    pub(crate) precision: PrecisionArg,
    /// Hold the matrices of the linear layers in 4 or 8 bits, as a run with `quantization` does
    #[arg(long, value_enum)]
    pub(crate) quantization: Option<QuantizationArg>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Send an adapter, a model or data to a registry, or into an OCI layout folder
///
/// The image is an ordinary one: container runtimes mount it, and KAITO reads it. Equal files give an
/// equal digest, and what the registry has already is not sent again. Credentials are those of
/// `docker login`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal push .anneal/reviews registry.example.com/team/reviews:v1
  anneal push .anneal/reviews/adapter oci:./images:v1
  anneal push oci:./images:v1 registry.example.com/team/reviews:v1
  anneal push reviews.jsonl registry.example.com/team/reviews-data:v1")]
pub(crate) struct PushArgs {
    /// A run's folder, the folder of an adapter or a model, a GGUF file, data, or oci:FOLDER[:TAG]
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// REGISTRY/REPOSITORY:TAG, or oci:FOLDER[:TAG]
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// What the source is: decides where in the image its files are
    #[arg(long = "as", value_enum, default_value_t = Kind::Auto)]
    pub(crate) kind: Kind,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Fetch the files of an image: an adapter, a base model or data
///
/// Files of an adapter image are what PEFT reads. Every byte is checked against the image's digest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal pull registry.example.com/team/reviews:v1 ./reviews
  anneal pull registry.example.com/team/reviews@sha256:9f86d0... ./reviews
  anneal pull oci:.anneal/reviews/image ./reviews")]
pub(crate) struct PullArgs {
    /// REGISTRY/REPOSITORY:TAG, REGISTRY/REPOSITORY@DIGEST, or oci:FOLDER[:TAG]
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// Folder to write the files into; it is created
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WorkspaceArgs {
    /// The `FineTuneWorkspace` as YAML; `-` reads the standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: String,
}

/// How a registry is spoken to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryArgs {
    /// Certificate authority (PEM) to trust beside the system's
    #[arg(long, value_name = "FILE", env = "ANNEAL_CA_FILE", hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Speak HTTP, not HTTPS. A registry on this machine is asked what it speaks
    #[arg(long)]
    pub(crate) plain_http: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For scripts
    Json,
}

/// What an image is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Told from the files
    Auto,
    /// PEFT's two files under /data
    Adapter,
    /// All files under /models
    Model,
    /// All files under /data
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    Fp32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuantizationArg {
    Nf4,
    Int8,
}

impl From<api::workspace::Precision> for PrecisionArg {
    fn from(precision: api::workspace::Precision) -> Self {
        match precision {
            api::workspace::Precision::Fp32 => Self::Fp32,
            api::workspace::Precision::Bf16 => Self::Bf16,
        }
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=100.0).contains(&value), "a number from 0 to 100")
}

fn top_p(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "a number above 0, at most 1")
}

fn number(text: &str, holds: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if holds(value) => Ok(value),
        _ => Err(format!("must be {wanted}")),
    }
}
