//! Server-sent events.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::choice::Part;
use super::error::ApiError;

/// Makes frames of what becomes of the answers.
pub(super) trait Frames: Send + 'static {
    /// Frames in front of all others.
    fn begin(&mut self) -> Vec<Value>;
    fn part(&mut self, part: Part) -> Vec<Value>;
    /// Frames behind all others.
    fn end(&mut self) -> Vec<Value>;
}

/// The response; answers end when the client has gone.
pub(super) fn response(
    parts: Receiver<Result<Part, ApiError>>,
    mut frames: impl Frames,
) -> Response {
    let waiting: VecDeque<Bytes> = frames.begin().iter().map(frame).collect();
    let state = (parts, frames, waiting, false);
    let body = stream::unfold(state, |(mut parts, mut frames, mut waiting, mut over)| async move {
        loop {
            if let Some(next) = waiting.pop_front() {
                return Some((
                    Ok::<_, std::convert::Infallible>(next),
                    (parts, frames, waiting, over),
                ));
            }
            if over {
                return None;
            }
            match parts.recv().await {
                Some(Ok(part)) => waiting.extend(frames.part(part).iter().map(frame)),
                Some(Err(error)) => {
                    // Headers are out: the error is a frame, and the last one.
                    waiting.push_back(frame(&error.json()));
                    over = true;
                }
                None => {
                    waiting.extend(frames.end().iter().map(frame));
                    waiting.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                    over = true;
                }
            }
        }
    });
    Response::builder()
        .header(CONTENT_TYPE, "text/event-stream")
        .header(CACHE_CONTROL, "no-cache")
        .body(Body::from_stream(body))
        .expect("plain headers make a response")
}

fn frame(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}
