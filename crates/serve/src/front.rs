//! A server in front of vLLM. Clients name adapters as they do with our own engine; the adapters come from a
//! registry in the same way ([`crate::adapters`]), and vLLM loads and unloads them while it runs.
//!
//! vLLM itself listens where nobody else reaches it: whoever may load an adapter there may load any file.

mod pass;
mod vllm;

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use lm::adapters::{LinearShapes, shapes_of};
use lm::config::ModelConfig;
use lm::files::ModelFiles;
use oci::with_causes;
use serde_json::{Value, json};

use crate::adapters::{AdapterOptions, Adapters, Orders};
use crate::catalog::Catalog;
use crate::http::error::ApiError;
use crate::http::models::{card, held, take};
use crate::http::{HttpOptions, Json, nothing, read, wrong_method};
use crate::metrics::Common;
use crate::server::{ServeError, listen, on_threads, until_ended};
use vllm::{Needs, Vllm};

/// What is passed on to vLLM; nothing else of it is to be had from outside.
const PASSED: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"];

/// How a server in front of vLLM is set up.
#[derive(Clone, Debug)]
pub struct FrontOptions {
    pub address: SocketAddr,
    /// Where a controller tells which adapters to hold; nobody else may reach it.
    pub control: Option<SocketAddr>,
    /// vLLM's address, such as `http://127.0.0.1:8001`.
    pub vllm: String,
    /// Folder or file of the base model, whose layers adapters are held against; without it vLLM alone sees to
    /// their shapes.
    pub model: Option<PathBuf>,
    /// The base model's name, to clients and in vLLM.
    pub name: String,
    /// Digest of the base model's image, which adapters are held against.
    pub base_digest: Option<String>,
    /// Highest rank of an adapter.
    pub max_rank: i64,
    /// Requests that are passed on at the same time; more are refused with status 429.
    pub requests: usize,
    pub adapters: AdapterOptions,
    pub http: HttpOptions,
    /// Longest time that running answers get when the server is told to end.
    pub drain: Duration,
}

/// Where a started server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontStarted {
    pub address: SocketAddr,
    pub control: Option<SocketAddr>,
}

/// What every request needs.
#[derive(Debug)]
struct Front {
    vllm: Arc<Vllm>,
    catalog: Arc<Catalog>,
    orders: Arc<Orders>,
    metrics: Arc<Common>,
    http: HttpOptions,
    /// Requests that may be at vLLM.
    most: usize,
    in_flight: AtomicUsize,
    draining: AtomicBool,
}

/// Serves until the process is told to end by SIGTERM or Ctrl-C. Not to be called from async code.
pub fn run(options: FrontOptions, told: impl FnOnce(FrontStarted)) -> Result<(), ServeError> {
    on_threads(serve(options, told))
}

async fn serve(options: FrontOptions, told: impl FnOnce(FrontStarted)) -> Result<(), ServeError> {
    // The followers' connections are their own: they run on another thread.
    let needs = Needs {
        shapes: options.model.as_deref().and_then(shapes),
        max_rank: options.max_rank,
        most_bytes: options.adapters.image_bytes,
    };
    let client = || Vllm::new(&options.vllm, needs.clone());
    let (here, there) = (client().map(Arc::new)?, client().map(Arc::new)?);
    let metrics = Arc::new(Common::new(&options.name)?);
    let catalog = Arc::new(Catalog::new(options.name.clone(), options.base_digest.clone()));
    let followed =
        Adapters::new(options.adapters, there, Arc::clone(&catalog), Arc::clone(&metrics));
    let front = Arc::new(Front {
        vllm: here,
        catalog,
        orders: followed.orders(),
        metrics,
        http: options.http,
        most: options.requests,
        in_flight: AtomicUsize::new(0),
        draining: AtomicBool::new(false),
    });
    let (listener, address) = listen(options.address).await?;
    let control = match options.control {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let started = FrontStarted { address, control: control.as_ref().map(|(_, address)| *address) };
    let following = followed.follow().map_err(|source| ServeError::Runtime { source })?;
    if let Some((listener, _)) = control {
        let router = controlled(Arc::clone(&front));
        // It ends with the runtime, after the last answer.
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    told(started);
    let router = router(Arc::clone(&front));
    let result = until_ended(listener, router, options.drain, move || {
        front.draining.store(true, Ordering::Release);
        tracing::info!(in_flight = front.in_flight.load(Ordering::Acquire), "ending");
    });
    let result = result.await;
    drop(following);
    result
}

/// The base model's layers. vLLM serves more kinds of models than are known here.
fn shapes(model: &FilePath) -> Option<LinearShapes> {
    let config = ModelFiles::open(model).map_err(|error| with_causes(&error));
    let config =
        config.and_then(|files| ModelConfig::open(&files).map_err(|error| with_causes(&error)));
    match config {
        Ok(config) => Some(shapes_of(&config)),
        Err(reason) => {
            tracing::warn!(reason, "adapters are not held against the base model's layers");
            None
        }
    }
}

fn router(front: Arc<Front>) -> Router {
    let mut api = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/anneal/adapters", get(adapters));
    for path in PASSED {
        api = api.route(path, post(pass::on));
    }
    Router::new()
        .route("/metrics", get(pass::metrics))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .merge(api.layer(middleware::from_fn_with_state(Arc::clone(&front), let_in)))
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&front), counted))
        .with_state(front)
}

/// Routes for a controller and for the kubelet, which have no key.
fn controlled(front: Arc<Front>) -> Router {
    Router::new()
        .route("/anneal/adapters", get(adapters).put(tell))
        .route("/anneal/engine", get(engine))
        .with_state(front)
}

async fn let_in(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    match front.http.stranger(request.headers()) {
        None => next.run(request).await,
        Some(error) => error.into_response(),
    }
}

async fn counted(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    front.metrics.request(response.status().as_u16());
    response
}

/// vLLM is well, and everything that is declared at the start is loaded, or was looked at and refused.
async fn readyz(State(front): State<Arc<Front>>) -> Response {
    let draining = front.draining.load(Ordering::Acquire);
    let fault = match (draining, front.vllm.health().await) {
        (true, _) => Some("the server is about to end".to_owned()),
        (false, Err(fault)) => Some(fault),
        (false, Ok(())) => front.catalog.missing(),
    };
    answered(fault)
}

/// Whether vLLM itself is well.
async fn engine(State(front): State<Arc<Front>>) -> Response {
    answered(front.vllm.health().await.err())
}

fn answered(fault: Option<String>) -> Response {
    match fault {
        None => "ok".into_response(),
        Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, fault).into_response(),
    }
}

async fn models(State(front): State<Arc<Front>>) -> Result<Json, ApiError> {
    let all = front.cards().await?;
    Ok(Json(json!({"object": "list", "data": all, "has_more": false})))
}

async fn model(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json, ApiError> {
    let found = front.cards().await?.into_iter().find(|card| card["id"] == json!(name));
    found.map(Json).ok_or_else(|| ApiError::unknown_model(&name, &front.catalog.names()))
}

async fn adapters(State(front): State<Arc<Front>>) -> Json {
    held(&front.catalog)
}

async fn tell(State(front): State<Arc<Front>>, body: Body) -> Result<Json, ApiError> {
    let body = read(body, front.http.body_bytes).await?;
    take(&body, &front.catalog, &front.orders)
}

impl Front {
    /// The base model and the adapters, under the names that clients use.
    async fn cards(&self) -> Result<Vec<Value>, ApiError> {
        let unreached =
            |told| ApiError::with(StatusCode::SERVICE_UNAVAILABLE, "model_failed", told);
        let there = self.vllm.models().await.map_err(unreached)?;
        let base = self.catalog.base();
        let context = there.into_iter().find(|card| card.id == base);
        let context = context.map(|card| card.max_model_len).unwrap_or_default();
        let mut all = vec![json!({
            "id": base,
            "object": "model",
            "created": self.catalog.since(),
            "owned_by": "vllm",
            "root": base,
            "parent": null,
            "max_model_len": context,
        })];
        for (name, entry) in self.catalog.entries() {
            all.extend(entry.served.as_ref().map(|served| card(&name, served, base, &context)));
        }
        Ok(all)
    }
}
