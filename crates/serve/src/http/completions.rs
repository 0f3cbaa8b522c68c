//! `/v1/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::choice::{Part, Told};
use super::error::ApiError;
use super::reply::{self, Form, Head, Whole};
use super::wire::{self, CompletionRequest, Prompt, Wishes};
use super::{App, Prepared, sse};

/// What every object is called.
const OBJECT: &str = "text_completion";
/// Tokens of an answer where the request does not say.
const TOKENS: usize = 16;
/// Most prompts of a request.
const MOST_PROMPTS: usize = 64;

pub(super) async fn answer(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let Started { wishes, prompts, echoes } = reply::read(&app, body, start).await?;
    let prompt_tokens = prompts.iter().map(|prompt| prompt.prompt.len()).sum();
    let answers = app.submit(&wishes, prompts, TOKENS)?;
    let choices = answers.len();
    let echoes = (0..choices).map(|index| echoes[index / wishes.choices].clone()).collect();
    let head = Head::new(&app, "cmpl", &wishes, prompt_tokens);
    let reply = Reply { head, echoes, offsets: vec![0; choices] };
    reply::send(&app, wishes, answers, reply).await
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
    head: Head,
    /// What each answer begins with.
    echoes: Vec<String>,
    /// Characters of each answer that have been told.
    offsets: Vec<usize>,
}

impl Form for Reply {
    fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    fn whole(&self, answers: Vec<Whole>) -> Value {
        let both = self.echoes.iter().zip(answers).enumerate();
        let choices = both.map(|(index, (echo, Whole { text, told, finish }))| {
            let logprobs = if self.head.logprobs { lists(&told, &mut 0) } else { Value::Null };
            choice(index, &format!("{echo}{text}"), &logprobs, Some(finish))
        });
        self.head.with_usage(OBJECT, &choices.collect())
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
        let echoed = self.echoes.iter().enumerate().filter(|(_, text)| !text.is_empty());
        echoed
            .map(|(index, text)| {
                let choice = choice(index, text, &Value::Null, None);
                self.head.object(OBJECT, &json!([choice]))
            })
            .collect()
    }

    fn part(&mut self, part: Part) -> Vec<Value> {
        self.head.count(&part);
        if part.text.is_empty() && part.tokens.is_empty() && part.finish.is_none() {
            return Vec::new();
        }
        let logprobs = if part.tokens.is_empty() {
            Value::Null
        } else {
            lists(&part.tokens, &mut self.offsets[part.index])
        };
        let choice = choice(part.index, &part.text, &logprobs, part.finish);
        vec![self.head.object(OBJECT, &json!([choice]))]
    }

    fn end(&mut self) -> Vec<Value> {
        self.head.last(OBJECT)
    }
}
