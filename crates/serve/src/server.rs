//! A server from its start to its end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use lm::files::{FilesError, ModelFiles};
use lm::tokenizer::{Tokenizer, TokenizerError};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::adapters::{AdapterOptions, Adapters};
use crate::catalog::Catalog;
use crate::engine::{Engine, EngineOptions, StartError};
use crate::http::{self, App, HttpOptions};
use crate::metrics::Metrics;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub address: SocketAddr,
    /// Where a controller tells which adapters to hold; nobody else may reach it.
    pub control: Option<SocketAddr>,
    /// Folder or GGUF file of the base model.
    pub model: PathBuf,
    /// The base model's name to clients.
    pub name: String,
    /// Digest of the base model's image, which adapters are held against.
    pub base_digest: Option<String>,
    pub engine: EngineOptions,
    pub adapters: AdapterOptions,
    pub http: HttpOptions,
    /// Longest time that running answers get when the server is told to end.
    pub drain: Duration,
}

impl ServeOptions {
    /// A server of a base model alone, at a free port of this machine; `cache` is for images of adapters.
    pub fn new(model: PathBuf, name: String, cache: PathBuf) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: None,
            model,
            name,
            base_digest: None,
            engine: EngineOptions::default(),
            adapters: AdapterOptions::new(cache),
            http: HttpOptions::default(),
            drain: Duration::from_secs(25),
        }
    }
}

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Engine(#[from] StartError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot set up a connection to the engine")]
    Client(#[from] reqwest::Error),
    #[error("cannot start to serve")]
    Runtime { source: std::io::Error },
}

impl ServeError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Listen { .. } => Some("name a free port of this machine".to_owned()),
            Self::Engine(StartError::Cache(_)) => {
                Some("give the key-value cache more bytes".to_owned())
            }
            Self::Engine(_) | Self::Metrics(_) | Self::Client(_) | Self::Runtime { .. } => None,
        }
    }
}

/// What a started server is; told once, before the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub address: SocketAddr,
    pub control: Option<SocketAddr>,
    pub name: String,
    pub context: usize,
    pub cache_bytes: usize,
}

/// Serves until the process is told to end by SIGTERM or Ctrl-C. Not to be called from async code.
pub fn run(options: ServeOptions, told: impl FnOnce(&Started)) -> Result<(), ServeError> {
    on_threads(serve(options, told))
}

/// Runs a server to its end.
pub(crate) fn on_threads(
    server: impl Future<Output = Result<(), ServeError>>,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| ServeError::Runtime { source })?;
    let result = runtime.block_on(server);
    // A pull that hangs does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(options: ServeOptions, told: impl FnOnce(&Started)) -> Result<(), ServeError> {
    let ServeOptions { address, control, model, name, base_digest, engine, adapters, http, drain } =
        options;
    let files = ModelFiles::open(&model)?;
    let tokenizer = Arc::new(Tokenizer::open(&files)?);
    let metrics = Arc::new(Metrics::new(&name)?);
    let (listener, address) = listen(address).await?;
    let control = match control {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let counted = Arc::clone(&metrics);
    let engine = tokio::task::spawn_blocking(move || Engine::start(files, engine, counted));
    let engine = engine.await.map_err(|_| StartError::Ended)??;
    let catalog = Arc::new(Catalog::new(name.clone(), base_digest));
    let (host, common) = (Arc::new(engine.clone()), Arc::clone(metrics.common()));
    let followed = Adapters::new(adapters, host, Arc::clone(&catalog), common);
    let started = Started {
        address,
        control: control.as_ref().map(|(_, address)| *address),
        name,
        context: engine.facts().context,
        cache_bytes: engine.facts().cache_bytes,
    };
    let app = Arc::new(App {
        engine,
        catalog,
        tokenizer,
        metrics,
        orders: followed.orders(),
        options: http,
        draining: AtomicBool::new(false),
        guides: OnceLock::new(),
        requests: AtomicU64::new(1),
    });
    let following = followed.follow().map_err(|source| ServeError::Runtime { source })?;
    if let Some((listener, _)) = control {
        let router = http::control(Arc::clone(&app));
        // It ends with the runtime, after the last answer.
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    told(&started);
    let router = http::router(Arc::clone(&app));
    let result = until_ended(listener, router, drain, move || {
        app.draining.store(true, Ordering::Release);
        tracing::info!(in_flight = app.engine.in_flight(), "ending");
    });
    let result = result.await;
    drop(following);
    result
}

/// A listener and its address. Where a machine has no IPv6, every address is every address of IPv4.
pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let mut bound = TcpListener::bind(address).await;
    if bound.is_err() && address.ip() == Ipv6Addr::UNSPECIFIED {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    let fault = |source| ServeError::Listen { address, source };
    let listener = bound.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener, address))
}

/// Answers until the process is told to end, of which `told` hears, and then as long as answers run, but not
/// for ever.
pub(crate) async fn until_ended(
    listener: TcpListener,
    router: Router,
    drain: Duration,
    told: impl FnOnce() + Send + 'static,
) -> Result<(), ServeError> {
    let fault = |source| ServeError::Runtime { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        told();
        let _ = end.send(());
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(stop);
    let deadline = async move {
        let _ = ended.await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = std::future::IntoFuture::into_future(server) => served.map_err(fault),
        () = deadline => Ok(()),
    }
}
