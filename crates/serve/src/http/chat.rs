//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use lm::chat::Message;
use serde_json::{Value, json};

use super::choice::{self, Part, Shared, Told};
use super::error::ApiError;
use super::tools::{self, Tools};
use super::wire::{self, ChatRequest, Wishes};
use super::{App, Json, Prepared, sse};
use crate::guide::Guide;

pub(super) async fn answer(State(app): State<Arc<App>>, body: Body) -> Response {
    match inner(&app, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn inner(app: &Arc<App>, body: Body) -> Result<Response, ApiError> {
    let bytes = app.body(body).await?;
    let (server, handle) = (Arc::clone(app), tokio::runtime::Handle::current());
    // Templates, tokens and schemas are work: not for the threads that answer the network.
    let started = handle.spawn_blocking(move || start(&server, &bytes)).await;
    let started = started.map_err(|error| ApiError::body(format!("cannot read: {error}")))?;
    let Started { wishes, prompt_tokens, prepared, tools } = started?;
    let answers = app.submit(&wishes, vec![prepared], usize::MAX)?;
    let reply = Reply {
        id: format!("chatcmpl-{:x}-{:x}", app.catalog.since(), app.number()),
        model: wishes.model.clone(),
        created: crate::catalog::now(),
        prompt_tokens,
        tokens: 0,
        choices: wishes.choices,
        include_usage: wishes.include_usage,
        logprobs: wishes.sampling.logprobs.is_some(),
        tools,
        texts: vec![String::new(); wishes.choices],
    };
    let shared = Shared {
        tokenizer: Arc::clone(&app.tokenizer),
        stops: wishes.stops,
        logprobs: wishes.sampling.logprobs.is_some(),
    };
    let parts = choice::follow(answers, shared);
    if wishes.stream { Ok(sse::response(parts, reply)) } else { reply.whole(parts).await }
}

struct Started {
    wishes: Wishes,
    prompt_tokens: usize,
    prepared: Prepared,
    tools: Option<Tools>,
}

fn start(app: &App, body: &[u8]) -> Result<Started, ApiError> {
    let request: ChatRequest = wire::parse(body)?;
    let logprobs = match (request.logprobs, request.top_logprobs) {
        (Some(true), top) => Some(top.unwrap_or(0)),
        (_, None) => None,
        (_, Some(_)) => {
            return Err(ApiError::bad("top_logprobs", "`top_logprobs` needs `logprobs: true`"));
        }
    };
    let wishes = request.common.check(logprobs)?;
    app.revision(&wishes.model)?;
    let template = app.tokenizer.chat().ok_or_else(|| {
        ApiError::bad("messages", "the base model has no chat template: use /v1/completions")
    })?;
    let tools = tools::read(
        request.tools,
        request.tool_choice.as_ref(),
        template.tools_source().unwrap_or_else(|| template.source()),
    )?;
    let messages = request.messages.into_iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    let listed = tools.as_ref().map(Tools::listed);
    let text = template
        .render(&messages, true, listed.as_ref())
        .map_err(|error| ApiError::bad("messages", error.to_string()))?;
    let prompt = app.tokenizer.encode(&text, false)?;
    let schema = match tools.as_ref().and_then(Tools::schema) {
        Some(schema) => Some(schema),
        None => request.response_format.as_ref().map(schema_of).transpose()?.flatten(),
    };
    let guide: Option<Guide> = schema.map(|schema| app.guide(schema)).transpose()?;
    let prompt_tokens = prompt.len();
    Ok(Started { wishes, prompt_tokens, prepared: Prepared { prompt, guide }, tools })
}

/// A message whose content is one text: parts of text are joined, other parts are refused.
fn plain(mut message: Message) -> Result<Message, ApiError> {
    let Value::Array(parts) = &message.content else { return Ok(message) };
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text")?.as_str()).collect();
    let texts = texts.ok_or_else(|| ApiError::bad("messages", "only parts of text are taken"))?;
    message.content = Value::String(texts.concat());
    Ok(message)
}

/// The schema that a `response_format` asks for.
fn schema_of(format: &Value) -> Result<Option<Value>, ApiError> {
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        Some("json_schema") => match format.pointer("/json_schema/schema") {
            Some(schema) => Ok(Some(schema.clone())),
            None => Err(ApiError::bad("response_format", "`json_schema.schema` is missing")),
        },
        _ => {
            let told = "`response_format.type` is one of text, json_object and json_schema";
            Err(ApiError::bad("response_format", told))
        }
    }
}

/// What the answers are put into.
struct Reply {
    id: String,
    model: String,
    created: u64,
    prompt_tokens: usize,
    tokens: usize,
    choices: usize,
    include_usage: bool,
    logprobs: bool,
    tools: Option<Tools>,
    /// With tools, text that is not sent before it is known to be no call.
    texts: Vec<String>,
}

impl Reply {
    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        })
    }

    fn chunk(&self, choices: &Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn delta(&self, index: usize, delta: &Value, told: &[Told], finish: Option<&str>) -> Value {
        let logprobs = (!told.is_empty()).then(|| content(told));
        self.chunk(&json!([{
            "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish,
        }]))
    }

    /// Waits for all answers.
    async fn whole(
        mut self,
        mut parts: tokio::sync::mpsc::Receiver<Result<Part, ApiError>>,
    ) -> Result<Response, ApiError> {
        let mut told: Vec<Vec<Told>> = vec![Vec::new(); self.choices];
        let mut finish = vec!["stop"; self.choices];
        while let Some(part) = parts.recv().await {
            let part = part?;
            self.tokens += part.count;
            self.texts[part.index].push_str(&part.text);
            told[part.index].extend(part.tokens);
            finish[part.index] = part.finish.unwrap_or(finish[part.index]);
        }
        let choices: Vec<Value> = (0..self.choices)
            .map(|index| {
                let calls = self.tools.as_ref().and_then(|t| t.calls(&self.texts[index]));
                let (message, finish) = if let Some((text, calls)) = calls {
                    let text = (!text.is_empty()).then_some(text);
                    let message =
                        json!({"role": "assistant", "content": text, "tool_calls": calls});
                    (message, "tool_calls")
                } else {
                    let text = &self.texts[index];
                    let message = json!({"role": "assistant", "content": text, "refusal": null});
                    (message, finish[index])
                };
                let logprobs = self.logprobs.then(|| content(&told[index]));
                json!({
                    "index": index, "message": message, "logprobs": logprobs,
                    "finish_reason": finish,
                })
            })
            .collect();
        Ok(Json(json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": self.usage(),
        }))
        .into_response())
    }
}

fn content(told: &[Told]) -> Value {
    json!({"content": told.iter().map(Told::chat).collect::<Vec<_>>(), "refusal": null})
}

impl sse::Frames for Reply {
    fn begin(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        (0..self.choices).map(|index| self.delta(index, &delta, &[], None)).collect()
    }

    fn part(&mut self, part: Part) -> Vec<Value> {
        self.tokens += part.count;
        let mut frames = Vec::new();
        let (index, mut finish, mut text) = (part.index, part.finish, part.text);
        if let Some(tools) = &self.tools {
            // A call is known as one only when it is complete.
            self.texts[index].push_str(&text);
            text = if finish.is_some() { self.texts[index].clone() } else { String::new() };
            if finish.is_some()
                && let Some((before, mut calls)) = tools.calls(&text)
            {
                tools::number(&mut calls);
                let delta = json!({"tool_calls": calls});
                text = before;
                finish = Some("tool_calls");
                frames.push(self.delta(index, &delta, &[], None));
            }
        }
        if !text.is_empty() || !part.tokens.is_empty() {
            frames.insert(0, self.delta(index, &json!({"content": text}), &part.tokens, None));
        }
        if finish.is_some() {
            frames.push(self.delta(index, &json!({}), &[], finish));
        }
        frames
    }

    fn end(&mut self) -> Vec<Value> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.chunk(&json!([]));
        chunk["usage"] = self.usage();
        vec![chunk]
    }
}
