//! Requests as clients send them, and what of them is checked. Unknown fields are passed over, as OpenAI's
//! own clients send many.

use std::collections::BTreeMap;

use lm::chat::Message;
use lm::sample::Sampling;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;

/// Most answers to one prompt.
const MOST_CHOICES: usize = 16;
/// Most tokens that are told beside each one.
const MOST_LOGPROBS: usize = 20;
/// Most texts that end an answer.
const MOST_STOPS: usize = 16;

/// What both kinds of request have.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    pub(super) model: String,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    n: Option<usize>,
    stop: Option<OneOrMany<String>>,
    stop_token_ids: Option<Vec<u32>>,
    /// As in vLLM: goes on to `max_tokens`.
    ignore_eos: Option<bool>,
    seed: Option<i64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<String, f32>>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// `POST /v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) messages: Vec<Message>,
    pub(super) logprobs: Option<bool>,
    pub(super) top_logprobs: Option<usize>,
    pub(super) response_format: Option<Value>,
    pub(super) tools: Option<Vec<Value>>,
    pub(super) tool_choice: Option<Value>,
}

/// `POST /v1/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) prompt: Prompt,
    pub(super) logprobs: Option<usize>,
    pub(super) echo: Option<bool>,
    pub(super) suffix: Option<String>,
    pub(super) best_of: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

/// A request's options, checked.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) model: String,
    pub(super) sampling: Sampling,
    pub(super) max_tokens: Option<usize>,
    pub(super) choices: usize,
    pub(super) stops: Vec<String>,
    pub(super) stop_ids: Vec<u32>,
    pub(super) ignore_eos: bool,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// Reads a body; the error says where it is wrong.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::body(format!("the body is not JSON: {error}")))?;
    serde_json::from_value(value)
        .map_err(|error| ApiError::body(format!("the body cannot be understood: {error}")))
}

impl Common {
    /// Checks every option.
    pub(super) fn check(self, logprobs: Option<usize>) -> Result<Wishes, ApiError> {
        let options = self.stream_options.unwrap_or_default();
        let stops = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        if stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
            let told = format!("`stop` takes up to {MOST_STOPS} texts, none of them empty");
            return Err(ApiError::bad("stop", told));
        }
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(ApiError::bad("max_tokens", "`max_tokens` has to be at least 1"));
        }
        let choices = within("n", self.n.unwrap_or(1), 1, MOST_CHOICES)?;
        if let Some(count) = logprobs {
            within("logprobs", count, 0, MOST_LOGPROBS)?;
        }
        let top_k = match self.top_k {
            None | Some(-1 | 0) => 0,
            Some(k) if k > 0 => k as usize,
            Some(_) => return Err(ApiError::bad("top_k", "`top_k` has to be -1, 0 or more")),
        };
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ApiError::bad("top_p", "`top_p` has to be above 0 and at most 1"));
        }
        let repetition_penalty = self.repetition_penalty.unwrap_or(1.0);
        if !(repetition_penalty > 0.0 && repetition_penalty.is_finite()) {
            let told = "`repetition_penalty` has to be above 0";
            return Err(ApiError::bad("repetition_penalty", told));
        }
        let sampling = Sampling {
            temperature: within("temperature", self.temperature.unwrap_or(1.0), 0.0, 2.0)?,
            top_p,
            top_k,
            min_p: within("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?,
            repetition_penalty,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            logit_bias: biases(self.logit_bias.unwrap_or_default())?,
            seed: self.seed.map_or_else(fresh_seed, |seed| seed as u64),
            logprobs,
        };
        Ok(Wishes {
            model: self.model,
            sampling,
            max_tokens,
            choices,
            stops,
            stop_ids: self.stop_token_ids.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            stream: self.stream.unwrap_or(false),
            include_usage: options.include_usage.unwrap_or(false),
        })
    }
}

fn within<T: Copy + PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<T, ApiError> {
    if value >= low && value <= high {
        return Ok(value);
    }
    Err(ApiError::bad(name, format!("`{name}` has to be from {low} to {high}, and is {value}")))
}

fn penalty(name: &'static str, value: Option<f64>) -> Result<f64, ApiError> {
    within(name, value.unwrap_or(0.0), -2.0, 2.0)
}

fn biases(map: BTreeMap<String, f32>) -> Result<Vec<(u32, f32)>, ApiError> {
    map.into_iter()
        .map(|(id, bias)| {
            let id = id.parse().map_err(|_| {
                ApiError::bad("logit_bias", format!("`logit_bias` has the token `{id}`, not an id"))
            })?;
            Ok((id, within("logit_bias", bias, -100.0, 100.0)?))
        })
        .collect()
}

/// A seed for a request that names none: another one for each.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(crate::catalog::now())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn checked(body: &str) -> Result<Wishes, ApiError> {
        let request: ChatRequest = parse(body.as_bytes())?;
        request.common.check(request.top_logprobs)
    }

    #[test]
    fn every_option_is_checked_by_name() {
        for (field, value) in [
            ("temperature", "3"),
            ("top_p", "0"),
            ("top_k", "-7"),
            ("min_p", "1.5"),
            ("n", "0"),
            ("presence_penalty", "-3"),
            ("frequency_penalty", "2.5"),
            ("repetition_penalty", "0"),
            ("max_tokens", "0"),
            ("stop", "[\"\"]"),
            ("logit_bias", "{\"x\": 1}"),
        ] {
            let body = format!(r#"{{"model": "m", "messages": [], "{field}": {value}}}"#);
            assert_eq!(checked(&body).unwrap_err().param, Some(field));
        }
        let body = r#"{"model": "m", "messages": [], "stop": "a", "seed": -1, "user": "x"}"#;
        let wishes = checked(body).unwrap();
        assert_eq!((wishes.stops, wishes.sampling.seed), (vec!["a".to_owned()], u64::MAX));
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let prompt = |text: &str| serde_json::from_str::<Prompt>(text).unwrap();
        assert!(matches!(prompt(r#""a""#), Prompt::Text(_)));
        assert!(matches!(prompt(r#"["a", "b"]"#), Prompt::Texts(_)));
        assert!(matches!(prompt("[1, 2]"), Prompt::Ids(_)));
        assert!(matches!(prompt("[[1], [2]]"), Prompt::IdLists(_)));
    }
}
