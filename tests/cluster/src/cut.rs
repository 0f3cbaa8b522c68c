//! A way to the API server that ends after so many writes: what was written is there, the answer never
//! comes, and nothing else gets through. So the operator can be ended between any two writes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use tempfile::TempDir;
use testkit::cluster::User;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::{Place, client};

/// Largest request of the operator's.
const MOST: usize = 4 << 20;

/// The way, which is closed at first. It ends when it is dropped.
#[derive(Debug)]
pub struct Cut {
    gate: Arc<Gate>,
    folder: TempDir,
    server: tokio::task::JoinHandle<()>,
}

struct Way {
    client: Client,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    /// Writes that may still be made.
    left: AtomicU32,
    spent: Notify,
}

impl Cut {
    /// A way on which one speaks as the operator.
    pub async fn new(place: &Place) -> Result<Self> {
        let gate = Arc::new(Gate::default());
        let way =
            Way { client: client(place.plane, User::Operator).await?, gate: Arc::clone(&gate) };
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let port = listener.local_addr()?.port();
        let router = Router::new().fallback(forward).with_state(Arc::new(way));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let folder = tempfile::tempdir().context("no folder for a kubeconfig")?;
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
             clusters: [{{name: test, cluster: {{server: \"http://127.0.0.1:{port}\"}}}}]\n\
             users: [{{name: test, user: {{}}}}]\n",
        );
        fs::write(folder.path().join("kubeconfig"), config)?;
        Ok(Self { gate, folder, server })
    }

    /// Where to find it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Lets so many writes through.
    pub fn allow(&self, writes: u32) {
        self.gate.left.store(writes, Ordering::SeqCst);
    }

    /// Waits until they have been made.
    pub async fn spent(&self) {
        self.gate.spent.notified().await;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(State(way): State<Arc<Way>>, request: Request) -> Response {
    let writes = request.method() != Method::GET;
    if writes && way.gate.left.load(Ordering::SeqCst) == 0 {
        return std::future::pending().await;
    }
    let answer = match pass(&way.client, request).await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    };
    // A write that was refused has changed nothing.
    if writes && answer.status().is_success() && way.gate.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        way.gate.spent.notify_one();
        return std::future::pending().await;
    }
    answer
}

async fn pass(client: &Client, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().context("a request without a path")?.as_str();
    let mut onward = http::Request::builder().method(parts.method).uri(path);
    for name in [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let body = to_bytes(body, MOST).await?.to_vec();
    let answer = client.send(onward.body(body.into())?).await?;
    Ok(answer.map(Body::new))
}
