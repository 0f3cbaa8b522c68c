//! The HTTP API: OpenAI's, and what a cluster asks a server.

mod chat;
mod choice;
mod completions;
pub(crate) mod error;
pub(crate) mod models;
mod reply;
mod sse;
mod tools;
mod wire;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use lm::tokenizer::Tokenizer;
use serde_json::Value;

use crate::adapters::Orders;
use crate::catalog::Catalog;
use crate::engine::{Answer, Engine, Submission};
use crate::guide::{Guide, Guides};
use crate::metrics::Metrics;
use error::ApiError;
use wire::Wishes;

/// Longest time that a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How the API is set up.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// SHA-256 digests of the keys that are let in; everybody is where there are none.
    pub keys: BTreeSet<String>,
    /// Largest body of a request.
    pub body_bytes: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), body_bytes: 4 << 20 }
    }
}

impl HttpOptions {
    /// Why a request is not let in, where it is not.
    pub(crate) fn stranger(&self, headers: &HeaderMap) -> Option<ApiError> {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        // Digests are compared, so that the time this takes tells nothing of the keys.
        if self.keys.is_empty() || self.keys.contains(&oci::sha256(key.as_bytes())) {
            return None;
        }
        let told = if key.is_empty() { "no API key was sent" } else { "the API key is not known" };
        Some(ApiError::with(StatusCode::UNAUTHORIZED, "invalid_api_key", told))
    }
}

/// The body of a request, as far as it is let in.
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let told = format!("the body is larger than {most} bytes, or broke off");
            Err(ApiError::with(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", told))
        }
        Err(_) => {
            let told = "the body did not come in time";
            Err(ApiError::with(StatusCode::REQUEST_TIMEOUT, "timeout", told))
        }
    }
}

/// What every request needs.
#[derive(Debug)]
pub struct App {
    pub engine: Engine,
    pub catalog: Arc<Catalog>,
    pub tokenizer: Arc<Tokenizer>,
    pub metrics: Arc<Metrics>,
    pub orders: Arc<Orders>,
    pub options: HttpOptions,
    /// Set when the server is about to end.
    pub draining: AtomicBool,
    pub guides: OnceLock<Result<Guides, String>>,
    pub requests: AtomicU64,
}

/// A prompt on its way to the engine.
struct Prepared {
    prompt: Vec<u32>,
    guide: Option<Guide>,
}

/// A body of JSON.
pub(crate) struct Json(pub(crate) Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0.to_string()).into_response()
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
        .route("/anneal/adapters", get(models::adapters))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), let_in));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(api)
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), numbered))
        .with_state(app)
}

/// Routes for a controller, which has no key: at an address of their own, which others must not reach.
pub fn control(app: Arc<App>) -> Router {
    let adapters = get(models::adapters).put(models::tell);
    Router::new().route("/anneal/adapters", adapters).with_state(app)
}

/// Asks for a key, where keys are set.
async fn let_in(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.options.stranger(request.headers()) {
        None => next.run(request).await,
        Some(error) => error.into_response(),
    }
}

/// Gives each answer a number, and counts it.
async fn numbered(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    app.metrics.common().request(response.status().as_u16());
    let id = format!("req-{:x}", app.number());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

pub(crate) async fn nothing(request: Request) -> Response {
    let told = format!("there is nothing at {}", request.uri().path());
    ApiError::with(StatusCode::NOT_FOUND, "unknown_url", told).into_response()
}

pub(crate) async fn wrong_method(request: Request) -> Response {
    let told = format!("{} is not answered at {}", request.method(), request.uri().path());
    ApiError::with(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", told).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, app.metrics.common().text()).into_response()
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    if app.engine.is_healthy() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the model has failed").into_response()
    }
}

/// Ready once everything that is declared at the start is served, or was looked at and refused.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.not_ready() {
        None => "ok".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

impl App {
    fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("the server is about to end".to_owned());
        }
        if !self.engine.is_healthy() {
            return Some("the model has failed".to_owned());
        }
        self.catalog.missing()
    }

    async fn body(&self, body: Body) -> Result<Bytes, ApiError> {
        read(body, self.options.body_bytes).await
    }

    /// A guide along a JSON schema.
    fn guide(&self, schema: Value) -> Result<Guide, ApiError> {
        let vocabulary = self.engine.facts().vocabulary;
        let guides = self.guides.get_or_init(|| {
            Guides::new(&self.tokenizer, vocabulary).map_err(|error| error.to_string())
        });
        let bad = |text: String| ApiError::bad("response_format", text);
        let guides = guides.as_ref().map_err(|error| bad(error.clone()))?;
        guides.along(schema).map_err(|error| bad(error.to_string()))
    }

    /// Sends every prompt to the engine, as often as answers are wanted.
    fn submit(
        &self,
        wishes: &Wishes,
        prompts: Vec<Prepared>,
        unlimited: usize,
    ) -> Result<Vec<Answer>, ApiError> {
        if !self.engine.is_healthy() {
            let told = "the model has failed: the server has to be started again";
            return Err(ApiError::with(StatusCode::SERVICE_UNAVAILABLE, "model_failed", told));
        }
        let limit = self.engine.facts().context;
        let mut ends = wishes.stop_ids.clone();
        if !wishes.ignore_eos {
            ends.extend(self.tokenizer.eos());
        }
        let adapter = self.revision(&wishes.model)?;
        let mut submissions = Vec::new();
        for (index, Prepared { prompt, mut guide }) in prompts.into_iter().enumerate() {
            let asked = wishes.max_tokens.unwrap_or(1);
            if prompt.len() + asked > limit {
                return Err(ApiError::context(limit, prompt.len(), asked));
            }
            let free = limit - prompt.len();
            let max_tokens = wishes.max_tokens.unwrap_or(unlimited.min(free));
            for choice in 0..wishes.choices {
                let mut sampling = wishes.sampling.clone();
                let number = (index * wishes.choices + choice) as u64;
                sampling.seed = sampling.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9));
                let last = choice + 1 == wishes.choices;
                let guide = if last { guide.take() } else { guide.as_ref().map(Guide::again) };
                let (prompt, ends) = (prompt.clone(), ends.clone());
                submissions.push(Submission { prompt, adapter, sampling, max_tokens, ends, guide });
            }
        }
        Ok(self.engine.submit(submissions)?)
    }

    /// The revision for a model's name.
    fn revision(&self, name: &str) -> Result<u64, ApiError> {
        let unknown = || ApiError::unknown_model(name, &self.catalog.names());
        self.catalog.find(name).ok_or_else(unknown)
    }
}
