//! What people and probes ask of the process: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use kube::runtime::reflector::Store;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::workspace::Watched;

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) workspaces: Store<Watched>,
}

/// What is still waited for before the process is of use; at first all of it.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(Arc<Mutex<Option<&'static str>>>);

impl Readiness {
    /// Waits for something.
    pub(crate) fn waits_for(what: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Some(what))))
    }

    /// Sets what is waited for now; `None` is ready.
    pub(crate) fn set(&self, what: Option<&'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn get(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers until the process ends.
pub(crate) async fn serve(address: SocketAddr, admin: Admin) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "answering /metrics, /healthz and /readyz");
    axum::serve(listener, router).await
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.readiness.get() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {what}")),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let workspaces = admin.workspaces.state();
    let readable = workspaces.iter().filter_map(|workspace| workspace.0.as_ref().ok());
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    match admin.metrics.text(readable) {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string().into_bytes()),
    }
}
