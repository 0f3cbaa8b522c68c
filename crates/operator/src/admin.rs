//! What people and probes ask of the process: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Set once watches have shown what there is, or another replica leads.
    pub(crate) is_ready: Arc<AtomicBool>,
    pub(crate) workspaces: Store<Watched>,
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
    if admin.is_ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first look at the cluster")
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let workspaces = admin.workspaces.state();
    let phases = workspaces.iter().filter_map(|workspace| {
        let phase = workspace.0.as_ref().ok()?.status.as_ref()?.phase?;
        Some(format!("{phase:?}"))
    });
    let phases: Vec<String> = phases.collect();
    admin.metrics.workspaces(phases.iter().map(String::as_str));
    match admin.metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    }
}
