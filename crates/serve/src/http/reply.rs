//! What both kinds of request have alike: they are read beside the network's threads, their answers are
//! streamed or gathered, and each object that tells of them begins in the same way.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::choice::{self, Part, Shared, Told};
use super::error::ApiError;
use super::wire::Wishes;
use super::{App, Json, sse};
use crate::engine::Answer;

/// What stands in every object that tells of a request's answers.
#[derive(Debug)]
pub(super) struct Head {
    id: String,
    model: String,
    created: u64,
    prompt_tokens: usize,
    /// Tokens of all answers so far.
    tokens: usize,
    pub(super) include_usage: bool,
    pub(super) logprobs: bool,
}

impl Head {
    /// `kind` is what the id begins with.
    pub(super) fn new(app: &App, kind: &str, wishes: &Wishes, prompt_tokens: usize) -> Self {
        Self {
            id: format!("{kind}-{:x}-{:x}", app.catalog.since(), app.number()),
            model: wishes.model.clone(),
            created: crate::catalog::now(),
            prompt_tokens,
            tokens: 0,
            include_usage: wishes.include_usage,
            logprobs: wishes.sampling.logprobs.is_some(),
        }
    }

    pub(super) fn count(&mut self, part: &Part) {
        self.tokens += part.count;
    }

    pub(super) fn object(&self, object: &str, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// The same with the tokens that were counted.
    pub(super) fn with_usage(&self, object: &str, choices: &Value) -> Value {
        let mut value = self.object(object, choices);
        value["usage"] = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        });
        value
    }

    /// The last frame of a stream, where its tokens are asked for.
    pub(super) fn last(&self, object: &str) -> Vec<Value> {
        let asked = self.include_usage.then(|| self.with_usage(object, &json!([])));
        asked.into_iter().collect()
    }
}

/// One answer from its beginning to its end.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) text: String,
    pub(super) told: Vec<Told>,
    pub(super) finish: &'static str,
}

/// An API's own form of the answers.
pub(super) trait Form: sse::Frames {
    fn head(&mut self) -> &mut Head;
    /// All answers in one object.
    fn whole(&self, answers: Vec<Whole>) -> Value;
}

/// Reads a request. Templates, tokens and schemas are work: not for the threads that answer the network.
pub(super) async fn read<T: Send + 'static>(
    app: &Arc<App>,
    body: Body,
    start: fn(&App, &[u8]) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let bytes = app.body(body).await?;
    let server = Arc::clone(app);
    let started = tokio::task::spawn_blocking(move || start(&server, &bytes)).await;
    started.map_err(|error| ApiError::body(format!("cannot read: {error}")))?
}

/// Streams the answers, or waits for all of them, as the client wishes.
pub(super) async fn send(
    app: &App,
    wishes: Wishes,
    answers: Vec<Answer>,
    mut form: impl Form,
) -> Result<Response, ApiError> {
    let shared = Shared {
        tokenizer: Arc::clone(&app.tokenizer),
        stops: wishes.stops,
        logprobs: wishes.sampling.logprobs.is_some(),
    };
    let empty = Whole { text: String::new(), told: Vec::new(), finish: "stop" };
    let mut all = vec![empty; answers.len()];
    let mut parts = choice::follow(answers, shared);
    if wishes.stream {
        return Ok(sse::response(parts, form));
    }
    while let Some(part) = parts.recv().await {
        let part = part?;
        form.head().count(&part);
        let one = &mut all[part.index];
        one.text.push_str(&part.text);
        one.told.extend(part.tokens);
        one.finish = part.finish.unwrap_or(one.finish);
    }
    Ok(Json(form.whole(all)).into_response())
}
