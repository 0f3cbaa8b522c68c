//! Options of everything that serves adapters, whichever engine runs them.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::names::parse_bytes;
use clap::Args;

use super::RegistryArgs;

/// How adapters are fetched and checked, where to listen, and who is let in.
#[derive(Debug, Args)]
pub(crate) struct ServingArgs {
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
    /// Highest rank of an adapter. In front of vLLM, what it was given as --max-lora-rank
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) max_rank: i64,
    /// File of API keys, one on a line, or a folder of such files; without it everybody is let in
    #[arg(long, value_name = "FILE", env = "ANNEAL_API_KEYS_FILE", hide_env_values = true)]
    pub(crate) api_keys: Option<PathBuf>,
    /// Disk for images of adapters that are not declared any more
    #[arg(long, value_name = "BYTES", default_value = "10Gi", value_parser = parse_bytes)]
    pub(crate) adapter_disk: u64,
    /// Largest image of an adapter that is pulled
    #[arg(long, value_name = "BYTES", default_value = "4Gi", value_parser = parse_bytes)]
    pub(crate) max_adapter: u64,
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
    pub(crate) registry: RegistryArgs,
}
