//! Options of `anneal serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{OutputArgs, PrecisionArg, RegistryArgs};

/// Answer requests over HTTP, as OpenAI's API does: a base model and any number of adapters
///
/// Adapters are declared in a file that is read again while the server runs: an image that moves to a new
/// revision is pulled by digest, verified, and served in place of the old one without a restart. A request
/// names an adapter as its model.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anneal serve --model base.gguf
  anneal serve --model base.gguf --adapters adapters.yaml --address 0.0.0.0:8000

adapters.yaml:
  adapters:
    - name: reviews
      image: registry.example.com/team/reviews:v1
    - name: local
      path: .anneal/reviews/adapter")]
pub(crate) struct ServeArgs {
    /// Base model: a folder, a GGUF file, hf:OWNER/NAME[@REVISION], oci:FOLDER[:TAG] or an image reference
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// The base model's name to clients. Without it, the last part of MODEL
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// File that declares adapters; it is followed while the server runs
    #[arg(long, value_name = "FILE")]
    pub(crate) adapters: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) address: SocketAddr,
    /// File of API keys, one on a line; without it everybody is let in
    #[arg(long, value_name = "FILE", env = "ANNEAL_API_KEYS_FILE", hide_env_values = true)]
    pub(crate) api_keys: Option<PathBuf>,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fp32)]
    pub(crate) precision: PrecisionArg,
    /// Memory for keys and values, taken at the start
    #[arg(long, value_name = "BYTES", default_value = "1Gi", value_parser = bytes)]
    pub(crate) cache_memory: u64,
    /// Memory for adapters; those that were used longest ago are read again when they are needed
    #[arg(long, value_name = "BYTES", default_value = "1Gi", value_parser = bytes)]
    pub(crate) adapter_memory: u64,
    /// Disk for images of adapters that are not declared any more
    #[arg(long, value_name = "BYTES", default_value = "10Gi", value_parser = bytes)]
    pub(crate) adapter_disk: u64,
    /// Largest image of an adapter that is pulled
    #[arg(long, value_name = "BYTES", default_value = "4Gi", value_parser = bytes)]
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
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// A number of bytes, plain or with Ki, Mi, Gi or Ti.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "must be a number of bytes, such as 500Mi or 2Gi".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("12"), Ok(12));
        assert_eq!(bytes("2Gi"), Ok(2 << 30));
        for text in ["", "Gi", "1GB", "-1", "99999999999Ti"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
