//! Errors in OpenAI's shape.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};

use crate::engine::{Failed, Overloaded};

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) param: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
}

impl ApiError {
    /// A mistake in the request.
    pub(crate) fn bad(param: &'static str, message: impl Into<String>) -> Self {
        let (message, param) = (message.into(), Some(param));
        Self { status: StatusCode::BAD_REQUEST, message, param, code: Some("invalid_value") }
    }

    /// A body that cannot be understood.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        let (status, message) = (StatusCode::BAD_REQUEST, message.into());
        Self { status, message, param: None, code: Some("invalid_json") }
    }

    pub(crate) fn with(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: Some(code) }
    }

    /// A model that nobody serves here.
    pub(crate) fn unknown_model(name: &str, names: &[String]) -> Self {
        let message = format!("the model `{name}` does not exist; there are: {}", names.join(", "));
        let (status, param) = (StatusCode::NOT_FOUND, Some("model"));
        Self { status, message, param, code: Some("model_not_found") }
    }

    pub(crate) fn context(limit: usize, prompt: usize, answer: usize) -> Self {
        let message = format!(
            "this model's maximum context length is {limit} tokens, and {} were requested \
             ({prompt} in the prompt, {answer} for the answer)",
            prompt + answer
        );
        let (status, param) = (StatusCode::BAD_REQUEST, Some("messages"));
        Self { status, message, param, code: Some("context_length_exceeded") }
    }

    pub(crate) fn json(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        json!({
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        })
    }
}

impl From<Overloaded> for ApiError {
    fn from(Overloaded: Overloaded) -> Self {
        let message = "too many requests are waiting; try again in a second";
        Self::with(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
    }
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> Self {
        let status = match failed {
            Failed::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Failed::Adapter(_) | Failed::Model(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::with(status, "server_error", failed.to_string())
    }
}

impl From<lm::tokenizer::TokenizerError> for ApiError {
    fn from(error: lm::tokenizer::TokenizerError) -> Self {
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, "server_error", error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            Response::builder().status(self.status).header(CONTENT_TYPE, "application/json");
        if matches!(self.status.as_u16(), 429 | 503) {
            response = response.header(RETRY_AFTER, "1");
        }
        let body = Body::from(self.json().to_string());
        response.body(body).expect("plain headers make a response")
    }
}
