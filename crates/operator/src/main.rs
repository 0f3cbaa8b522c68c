//! `anneal-operator`: makes a cluster follow its `FineTuneWorkspace`s and `ModelServer`s.
//!
//! Read [`workspace`] and [`server`] first. All decisions are `plan`'s; [`observe`] looks, [`apply`] writes; the rest
//! is what a process needs: [`watch`], [`leader`], [`admin`], [`metrics`], [`telemetry`], [`rbac`].

mod admin;
mod apply;
mod changes;
mod context;
mod counted;
mod kept;
mod leader;
mod metrics;
mod observe;
mod obstacle;
mod pools;
mod products;
mod rbac;
mod server;
mod subject;
mod telemetry;
mod watch;
mod workspace;
mod written;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "anneal-operator",
    about = "Makes a cluster follow its FineTuneWorkspaces and ModelServers"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the custom resource definitions
    Crds,
    /// Print the roles that the operator needs
    Rbac {
        /// For an operator that looks at this namespace alone
        #[arg(long)]
        namespace: Option<String>,
    },
}

/// How the operator runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Image of preflight and training pods
    #[arg(long, env = "ANNEAL_TRAINER_IMAGE", default_value = "ghcr.io/anneal-dev/trainer:latest")]
    trainer_image: String,
    /// Image of pods that serve
    #[arg(long, env = "ANNEAL_SERVER_IMAGE", default_value = "ghcr.io/anneal-dev/server:latest")]
    server_image: String,
    /// vLLM's image, for servers with `engine: VLLM`
    #[arg(long, env = "ANNEAL_VLLM_IMAGE", default_value = "docker.io/vllm/vllm-openai:v0.26.0")]
    vllm_image: String,
    /// Secrets with which these images are pulled, in the namespace of every workspace and server
    #[arg(long, env = "ANNEAL_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    image_pull_secrets: Vec<String>,
    /// Look at this namespace alone
    #[arg(long, env = "ANNEAL_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the lease by which one replica of several leads; without it no lease is taken
    #[arg(long, env = "ANNEAL_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Where /metrics, /healthz and /readyz are answered
    #[arg(long, env = "ANNEAL_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// Registries that are spoken to over http, as host:port
    #[arg(long, env = "ANNEAL_PLAIN_HTTP", value_delimiter = ',')]
    plain_http: Vec<String>,
    /// The server that repositories of the Hugging Face hub come from
    #[arg(long, env = "HF_ENDPOINT")]
    hub_endpoint: Option<String>,
    /// File with GPU products beside the built-in ones, in the form of `crates/plan/data/gpus.json`; it is
    /// read again once it has changed
    #[arg(long, env = "ANNEAL_GPU_CATALOGUE")]
    gpu_catalogue: Option<PathBuf>,
    /// Workspaces that are worked on at the same time
    #[arg(long, env = "ANNEAL_WORKERS", default_value_t = 8)]
    workers: u16,
}

fn main() -> ExitCode {
    let Args { command, options } = Args::parse();
    let result = match command {
        Some(Command::Crds) => {
            print(&format!("{}---\n{}", api::crd_yaml(), api::model_server_crd_yaml()))
        }
        Some(Command::Rbac { namespace }) => {
            rbac::yaml(namespace.as_deref()).map_err(Into::into).and_then(|text| print(&text))
        }
        None => run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn run(options: Options) -> anyhow::Result<()> {
    // The TLS library takes its arithmetic from here; a second installation is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let telemetry = telemetry::set_up(runtime.handle());
    let result = runtime.block_on(watch::run(options));
    telemetry.end();
    result
}
