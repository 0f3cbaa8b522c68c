//! Answers as vLLM's API server does where adapters are loaded and named (`vllm/entrypoints/openai/models/`
//! there): vLLM itself takes a GPU. An answer tells the name and the folder that it would have been made with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A running stand-in; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Vllm {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The base model's name.
    base: String,
    /// Folders by name.
    adapters: Mutex<BTreeMap<String, String>>,
    /// Streams end when it is told.
    end: Notify,
}

impl Vllm {
    /// Starts at an address, or at a free port.
    pub(crate) fn start(base: &str, address: Option<SocketAddr>) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared { base: base.to_owned(), ..Shared::default() });
        let router = Router::new()
            .route("/health", get(async || ""))
            .route("/metrics", get(async || "vllm:num_requests_waiting 0.0\n"))
            .route("/v1/models", get(models))
            .route("/v1/load_lora_adapter", post(load))
            .route("/v1/unload_lora_adapter", post(unload))
            .route("/v1/completions", post(complete))
            .with_state(Arc::clone(&shared));
        let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Names and folders of what is loaded.
    pub(crate) fn loaded(&self) -> BTreeMap<String, String> {
        self.shared.adapters.lock().unwrap().clone()
    }

    /// Forgets all adapters, as one that was started again.
    pub(crate) fn forget(&self) {
        self.shared.adapters.lock().unwrap().clear();
    }

    /// Lets all streams end.
    pub(crate) fn end_streams(&self) {
        self.shared.end.notify_waiters();
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    let body = json!({"error": {"message": message, "code": status.as_u16()}});
    (status, Json(body)).into_response()
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let mut data = vec![json!({"id": shared.base, "root": "/model", "max_model_len": 2048})];
    for (name, folder) in &*shared.adapters.lock().unwrap() {
        data.push(
            json!({"id": name, "root": folder, "parent": shared.base, "max_model_len": null}),
        );
    }
    Json(json!({"object": "list", "data": data}))
}

async fn load(State(shared): State<Arc<Shared>>, Json(body): Json<Value>) -> Response {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let (name, folder) = (text("lora_name"), text("lora_path"));
    if shared.adapters.lock().unwrap().contains_key(&name) {
        return error(StatusCode::BAD_REQUEST, &format!("'{name}' has already been loaded"));
    }
    let Ok(config) = std::fs::read_to_string(Path::new(&folder).join("adapter_config.json")) else {
        return error(StatusCode::NOT_FOUND, &format!("No adapter found for {folder}"));
    };
    // The only sign of a base model that the files of an adapter have.
    if config.contains("\"wq\"") {
        return error(StatusCode::BAD_REQUEST, "the base model has no module wq");
    }
    shared.adapters.lock().unwrap().insert(name, folder);
    "Success".into_response()
}

async fn unload(State(shared): State<Arc<Shared>>, Json(body): Json<Value>) -> Response {
    let name = body["lora_name"].as_str().unwrap_or_default();
    match shared.adapters.lock().unwrap().remove(name) {
        Some(_) => "Success".into_response(),
        None => error(StatusCode::NOT_FOUND, &format!("'{name}' cannot be found")),
    }
}

async fn complete(State(shared): State<Arc<Shared>>, Json(body): Json<Value>) -> Response {
    let name = body["model"].as_str().unwrap_or_default();
    let folder = shared.adapters.lock().unwrap().get(name).cloned();
    if folder.is_none() && name != shared.base {
        return error(StatusCode::NOT_FOUND, &format!("The model `{name}` does not exist."));
    }
    if body["stream"] != true {
        let answer = json!({"model": name, "folder": folder, "prompt": body["prompt"]});
        return Json(answer).into_response();
    }
    let piece = |text: &str| Ok::<_, std::io::Error>(format!("data: {text}\n\n"));
    let first = futures::stream::iter([piece(&json!({"model": name}).to_string())]);
    let rest = futures::stream::once(async move {
        shared.end.notified().await;
        piece("[DONE]")
    });
    let body = Body::from_stream(first.chain(rest));
    ([("content-type", "text/event-stream")], body).into_response()
}
