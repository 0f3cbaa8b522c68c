//! A client that counts what it asks of the API server, as client-go does.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::Service;

use crate::metrics::Metrics;

/// A client of the cluster that the environment names.
pub(crate) async fn client(metrics: &Metrics) -> anyhow::Result<Client> {
    let config = Config::infer().await.context("cannot find out how to reach the cluster")?;
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let metrics = metrics.clone();
    let layer = tower::layer::layer_fn(move |inner| Counted {
        inner,
        metrics: metrics.clone(),
        host: host.clone(),
    });
    Ok(ClientBuilder::try_from(config)
        .context("cannot set up a client")?
        .with_layer(&layer)
        .build())
}

/// A service around another one.
struct Counted<S> {
    inner: S,
    metrics: Metrics,
    host: String,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (metrics, host) = (self.metrics.clone(), self.host.clone());
        let method = request.method().as_str().to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = match &answer {
                Ok(answer) => answer.status().as_str().to_owned(),
                Err(_) => "<error>".to_owned(),
            };
            metrics.request(&code, &method, &host);
            answer
        })
    }
}
