//! `/v1/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::choice::{self, Part, Shared, Told};
use super::error::ApiError;
use super::wire::{self, CompletionRequest, Prompt, Wishes};
use super::{App, Json, Prepared, sse};

/// Tokens of an answer where the request does not say.
const TOKENS: usize = 16;
/// Most prompts of a request.
const MOST_PROMPTS: usize = 64;

pub(super) async fn answer(State(app): State<Arc<App>>, body: Body) -> Response {
    match inner(&app, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn inner(app: &Arc<App>, body: Body) -> Result<Response, ApiError> {
    let bytes = app.body(body).await?;
    let (server, handle) = (Arc::clone(app), tokio::runtime::Handle::current());
    let started = handle.spawn_blocking(move || start(&server, &bytes)).await;
    let started = started.map_err(|error| ApiError::body(format!("cannot read: {error}")))?;
    let Started { wishes, prompts, echoes } = started?;
    let prompt_tokens = prompts.iter().map(|prompt| prompt.prompt.len()).sum();
    let answers = app.submit(&wishes, prompts, TOKENS)?;
    let choices = answers.len();
    let texts = (0..choices).map(|index| echoes[index / wishes.choices].clone()).collect();
    let reply = Reply {
        id: format!("cmpl-{:x}-{:x}", app.catalog.since(), app.number()),
        model: wishes.model.clone(),
        created: crate::catalog::now(),
        prompt_tokens,
        tokens: 0,
        include_usage: wishes.include_usage,
        logprobs: wishes.sampling.logprobs.is_some(),
        texts,
        offsets: vec![0; choices],
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
    prompts: Vec<Prepared>,
    /// What each answer begins with.
    echoes: Vec<String>,
}

fn start(app: &App, body: &[u8]) -> Result<Started, ApiError> {
    let request: CompletionRequest = wire::parse(body)?;
    let wishes = request.common.check(request.logprobs)?;
    app.revision(&wishes.model)?;
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::bad("suffix", "`suffix` is not supported"));
    }
    if request.best_of.is_some_and(|best| best != wishes.choices) {
        return Err(ApiError::bad("best_of", "`best_of` other than `n` is not supported"));
    }
    let echo = request.echo.unwrap_or(false);
    if echo && request.logprobs.is_some() {
        return Err(ApiError::bad("echo", "`echo` together with `logprobs` is not supported"));
    }
    let encode = |text: &str| app.tokenizer.encode(text, true);
    let prompts = match request.prompt {
        Prompt::Text(text) => vec![encode(&text)?],
        Prompt::Texts(texts) => {
            texts.iter().map(|text| encode(text)).collect::<Result<Vec<_>, _>>()?
        }
        Prompt::Ids(ids) => vec![ids],
        Prompt::IdLists(lists) => lists,
    };
    if prompts.is_empty() || prompts.len() > MOST_PROMPTS || prompts.iter().any(Vec::is_empty) {
        let told = format!("`prompt` takes 1 to {MOST_PROMPTS} prompts, none of them empty");
        return Err(ApiError::bad("prompt", told));
    }
    let vocabulary = app.engine.facts().vocabulary;
    if let Some(id) = prompts.iter().flatten().find(|id| **id as usize >= vocabulary) {
        let told = format!("the model has no token {id}; it has {vocabulary}");
        return Err(ApiError::bad("prompt", told));
    }
    let echoes = prompts
        .iter()
        .map(|ids| if echo { app.tokenizer.decode(ids, true) } else { Ok(String::new()) })
        .collect::<Result<Vec<_>, _>>()?;
    let prompts = prompts.into_iter().map(|prompt| Prepared { prompt, guide: None }).collect();
    Ok(Started { wishes, prompts, echoes })
}

/// What the answers are put into.
struct Reply {
    id: String,
    model: String,
    created: u64,
    prompt_tokens: usize,
    tokens: usize,
    include_usage: bool,
    logprobs: bool,
    texts: Vec<String>,
    /// Characters of each answer that have been told.
    offsets: Vec<usize>,
}

impl Reply {
    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        })
    }

    fn object(&self, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    async fn whole(
        mut self,
        mut parts: tokio::sync::mpsc::Receiver<Result<Part, ApiError>>,
    ) -> Result<Response, ApiError> {
        let count = self.texts.len();
        let mut told: Vec<Vec<Told>> = vec![Vec::new(); count];
        let mut finish = vec!["stop"; count];
        while let Some(part) = parts.recv().await {
            let part = part?;
            self.tokens += part.count;
            self.texts[part.index].push_str(&part.text);
            told[part.index].extend(part.tokens);
            finish[part.index] = part.finish.unwrap_or(finish[part.index]);
        }
        let choices: Vec<Value> = (0..count)
            .map(|index| {
                let logprobs =
                    if self.logprobs { lists(&told[index], &mut 0) } else { Value::Null };
                choice(index, &self.texts[index], &logprobs, Some(finish[index]))
            })
            .collect();
        let mut object = self.object(&Value::Array(choices));
        object["usage"] = self.usage();
        Ok(Json(object).into_response())
    }
}

fn choice(index: usize, text: &str, logprobs: &Value, finish: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
}

/// Probabilities as this API has them: one list for each thing that is told.
fn lists(told: &[Told], offset: &mut usize) -> Value {
    let mut offsets = Vec::new();
    let mut tops = Vec::new();
    for token in told {
        offsets.push(*offset);
        *offset += token.token.text.chars().count();
        let mut top = Map::new();
        for (piece, logprob) in &token.top {
            top.insert(piece.text.clone(), json!(logprob));
        }
        top.insert(token.token.text.clone(), json!(token.logprob));
        tops.push(Value::Object(top));
    }
    json!({
        "tokens": told.iter().map(|token| &token.token.text).collect::<Vec<_>>(),
        "token_logprobs": told.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tops,
        "text_offset": offsets,
    })
}

impl sse::Frames for Reply {
    fn begin(&mut self) -> Vec<Value> {
        let echoed = self.texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
        echoed
            .map(|(index, text)| self.object(&json!([choice(index, text, &Value::Null, None)])))
            .collect()
    }

    fn part(&mut self, part: Part) -> Vec<Value> {
        self.tokens += part.count;
        if part.text.is_empty() && part.tokens.is_empty() && part.finish.is_none() {
            return Vec::new();
        }
        let logprobs = if part.tokens.is_empty() {
            Value::Null
        } else {
            lists(&part.tokens, &mut self.offsets[part.index])
        };
        let choice = choice(part.index, &part.text, &logprobs, part.finish);
        vec![self.object(&json!([choice]))]
    }

    fn end(&mut self) -> Vec<Value> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut object = self.object(&json!([]));
        object["usage"] = self.usage();
        vec![object]
    }
}
