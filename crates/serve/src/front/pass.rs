//! Requests on their way to vLLM and answers on their way back: the name of the model is exchanged for that of the
//! revision, and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{Front, vllm};
use crate::catalog::State as Progress;
use crate::engine::Overloaded;
use crate::http::error::ApiError;
use crate::http::read;

/// A request that vLLM is at; its end makes room for another one.
struct Place(Arc<Front>);

impl Place {
    fn take(front: &Arc<Front>) -> Result<Self, ApiError> {
        let place = Self(Arc::clone(front));
        if front.in_flight.fetch_add(1, Ordering::AcqRel) < front.most {
            return Ok(place);
        }
        Err(Overloaded.into())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Passes a request on, and its answer back as it comes.
pub(super) async fn on(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = read(body, front.http.body_bytes).await?;
    let mut body: Value =
        serde_json::from_slice(&body).map_err(|error| ApiError::body(error.to_string()))?;
    let model = body.get("model").and_then(Value::as_str).map(str::to_owned);
    let model = model.ok_or_else(|| ApiError::bad("model", "`model` is not there, or no text"))?;
    let place = Place::take(&front)?;
    let path = head.uri.path();
    let mut id = front.name_of(&model)?;
    loop {
        body["model"] = json!(id);
        let answer = sent(&front, path, &head.headers, body.to_string()).await?;
        let now = front.name_of(&model)?;
        match (answer.status(), id == model, id == now) {
            // The revision was replaced while the request was on its way.
            (reqwest::StatusCode::NOT_FOUND, _, false) => id = now,
            // vLLM has started again, and not all is loaded yet.
            (reqwest::StatusCode::NOT_FOUND, false, true) => {
                front.orders.look_again();
                return Err(loading(&model));
            }
            _ => return Ok(back(answer, place)),
        }
    }
}

async fn sent(
    front: &Front,
    path: &str,
    headers: &HeaderMap,
    body: String,
) -> Result<reqwest::Response, ApiError> {
    let mut request = front.vllm.request(reqwest::Method::POST, path);
    request = request.header(CONTENT_TYPE, "application/json").body(body);
    if let Some(accepted) = headers.get(ACCEPT) {
        request = request.header(ACCEPT, accepted);
    }
    request.send().await.map_err(|error| {
        tracing::warn!("vLLM does not answer: {}", oci::with_causes(&error));
        let told = "the model does not answer; try again in a while";
        ApiError::with(StatusCode::SERVICE_UNAVAILABLE, "model_failed", told)
    })
}

/// vLLM's answer, piece by piece. A client that hangs up ends the request to vLLM too.
fn back(answer: reqwest::Response, place: Place) -> Response {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let pieces = answer.bytes_stream().map(move |piece: Result<Bytes, reqwest::Error>| {
        let _until_the_last_one = &place;
        piece
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    for name in [CONTENT_TYPE, CONTENT_LENGTH] {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// vLLM's series and our own.
pub(super) async fn metrics(State(front): State<Arc<Front>>) -> Response {
    let theirs = front.vllm.metrics().await.unwrap_or_default();
    let gap = if theirs.is_empty() || theirs.ends_with('\n') { "" } else { "\n" };
    let text = format!("{theirs}{gap}{}", front.metrics.text());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

impl Front {
    /// vLLM's name of a model.
    fn name_of(&self, model: &str) -> Result<String, ApiError> {
        if model == self.catalog.base() {
            return Ok(model.to_owned());
        }
        let unknown = || ApiError::unknown_model(model, &self.catalog.names());
        let entry = self.catalog.get(model).ok_or_else(unknown)?;
        match (entry.served, entry.state) {
            (Some(served), _) => Ok(vllm::id(model, &served.digest)),
            (None, Progress::Refused) => Err(unknown()),
            (None, Progress::Loading | Progress::Serving | Progress::Unreachable) => {
                Err(loading(model))
            }
        }
    }
}

fn loading(model: &str) -> ApiError {
    let told = format!("`{model}` is being loaded; try again in a second");
    ApiError::with(StatusCode::SERVICE_UNAVAILABLE, "loading", told)
}
