//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use lm::chat::Message;
use serde_json::{Value, json};

use super::choice::{Part, Told};
use super::error::ApiError;
use super::reply::{self, Form, Head, Whole};
use super::tools::{self, Tools};
use super::wire::{self, ChatRequest, Wishes};
use super::{App, Prepared, sse};
use crate::guide::Guide;

/// What a frame is called.
const CHUNK: &str = "chat.completion.chunk";

pub(super) async fn answer(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let Started { wishes, prompt_tokens, prepared, tools } = reply::read(&app, body, start).await?;
    let answers = app.submit(&wishes, vec![prepared], usize::MAX)?;
    let head = Head::new(&app, "chatcmpl", &wishes, prompt_tokens);
    let reply = Reply { head, tools, texts: vec![String::new(); wishes.choices] };
    reply::send(&app, wishes, answers, reply).await
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
    head: Head,
    tools: Option<Tools>,
    /// Streamed with tools: text that is not sent before it is known to be no call.
    texts: Vec<String>,
}

impl Reply {
    fn chunk(&self, choices: &Value) -> Value {
        let mut chunk = self.head.object(CHUNK, choices);
        if self.head.include_usage {
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

    fn choice(&self, index: usize, Whole { text, told, finish }: &Whole) -> Value {
        let calls = self.tools.as_ref().and_then(|tools| tools.calls(text));
        let (message, finish) = if let Some((text, calls)) = calls {
            let text = (!text.is_empty()).then_some(text);
            (json!({"role": "assistant", "content": text, "tool_calls": calls}), "tool_calls")
        } else {
            (json!({"role": "assistant", "content": text, "refusal": null}), *finish)
        };
        let logprobs = self.head.logprobs.then(|| content(told));
        json!({
            "index": index, "message": message, "logprobs": logprobs, "finish_reason": finish,
        })
    }
}

impl Form for Reply {
    fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    fn whole(&self, answers: Vec<Whole>) -> Value {
        let choices = answers.iter().enumerate().map(|(index, answer)| self.choice(index, answer));
        self.head.with_usage("chat.completion", &choices.collect())
    }
}

fn content(told: &[Told]) -> Value {
    json!({"content": told.iter().map(Told::chat).collect::<Vec<_>>(), "refusal": null})
}

impl sse::Frames for Reply {
    fn begin(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        (0..self.texts.len()).map(|index| self.delta(index, &delta, &[], None)).collect()
    }

    fn part(&mut self, part: Part) -> Vec<Value> {
        self.head.count(&part);
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
        self.head.last(CHUNK)
    }
}
