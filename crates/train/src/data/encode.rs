//! Turns samples into tokens and decides which of them are learned.
//!
//! - **Conversations** go through the model's own chat template. What the assistant says is learned,
//!   with the token that ends its turn; headers of turns and everybody else's words are not.
//! - **Prompt and completion** are joined as they are, with no template, and the end-of-sequence
//!   token follows (as TRL does for plain strings). The completion and that token are learned. With a
//!   system message they become a conversation of one question and one answer instead.
//! - **Text** is learned whole, with an end-of-sequence token.
//!
//! The tokens before a learned run are exactly those that a model is given when it is asked, so
//! that training and use agree also where a tokenizer would merge across the border.

mod chat;
mod error;

use api::fault::Fault;
use api::run_spec::{Data, Format, Overlong};
use lm::tokenizer::Tokenizer;

use super::example::{Example, Learned, Question};
use super::sample::{Chat, Sample};

pub(super) use error::EncodeError;

/// Tokenises samples for one model.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    data: &'a Data,
    /// Ends a completion or a text.
    end: u32,
}

/// What became of a sample.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// None where the sample was dropped; more than one where the chat template shows earlier turns
    /// differently than it showed them when they were said.
    pub(super) examples: Vec<Example>,
    pub(super) dropped: bool,
    pub(super) truncated: bool,
}

impl<'a> Encoder<'a> {
    /// Checks that the tokenizer has what the format needs.
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        data: &'a Data,
        format: Format,
    ) -> Result<Self, Fault> {
        let fault = |message: &str, hint: &str| Fault {
            field: Some("spec.baseModel".to_owned()),
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
            ..Fault::default()
        };
        let end = *tokenizer.eos().first().ok_or_else(|| {
            fault(
                "the tokenizer names no end-of-sequence token, so a model could not learn to stop",
                "set eos_token in the model's tokenizer_config.json",
            )
        })?;
        if data.system.is_some() && tokenizer.chat().is_none() {
            return Err(fault(
                "spec.data.system is set, but the model has no chat template to put it in",
                "take an instruction-tuned model, or put the text into the prompt",
            ));
        }
        if format == Format::Chat && tokenizer.chat().is_none() {
            return Err(fault(
                "the data holds conversations, but the model has no chat template",
                "take an instruction-tuned model, or data with prompt and completion",
            ));
        }
        Ok(Self { tokenizer, data, end })
    }

    /// Tokenises one sample. `ask` adds the question for held-out samples.
    pub(super) fn encode(&self, sample: &Sample, ask: bool) -> Result<Encoded, EncodeError> {
        let mut examples = match sample {
            Sample::Chat(chat) => self.chat(chat, ask)?,
            Sample::Completion { prompt, completion } if self.data.system.is_some() => {
                self.chat(&Chat::of_one_answer(prompt, completion), ask)?
            }
            Sample::Completion { prompt, completion } => {
                vec![self.completion(prompt, completion, ask)?]
            }
            Sample::Text(text) => vec![self.text(text)?],
        };
        for example in &mut examples {
            for run in &mut example.learned {
                run.tokens.start = run.tokens.start.max(1);
            }
            example.learned.retain(|run| run.tokens.start < run.tokens.end && run.weight > 0.0);
            if example.learned.is_empty() {
                return Err(EncodeError::NothingLearned(example.ids.len()));
            }
        }
        self.limit(examples)
    }

    /// Applies the longest length that is allowed.
    fn limit(&self, mut examples: Vec<Example>) -> Result<Encoded, EncodeError> {
        let allowed = self.data.max_sequence_length;
        let longest = examples.iter().map(|example| example.ids.len()).max().unwrap_or(0);
        if longest <= allowed {
            return Ok(Encoded { examples, ..Encoded::default() });
        }
        match self.data.overlong {
            Overlong::Fault => Err(EncodeError::TooLong { tokens: longest, allowed }),
            Overlong::Drop => Ok(Encoded { dropped: true, ..Encoded::default() }),
            Overlong::Truncate => {
                for example in &mut examples {
                    example.truncate(allowed);
                }
                // Where the prompt alone fills the length, nothing is left to learn from.
                examples.retain(|example| !example.learned.is_empty());
                Ok(Encoded { dropped: examples.is_empty(), truncated: true, examples })
            }
        }
    }

    fn completion(
        &self,
        prompt: &str,
        completion: &str,
        ask: bool,
    ) -> Result<Example, EncodeError> {
        let prompt_ids = self.ids(prompt, true)?;
        let whole = self.ids(&format!("{prompt}{completion}"), true)?;
        let border = prompt_ids.len();
        let mut ids = if whole.starts_with(&prompt_ids) {
            whole
        } else {
            // The tokenizer merges across the border. A model that is asked sees the prompt alone.
            let mut ids = prompt_ids.clone();
            ids.extend(self.ids(completion, false)?);
            ids
        };
        self.finish(&mut ids);
        let learned = vec![Learned { tokens: border..ids.len(), weight: 1.0 }];
        let question = ask.then(|| Question {
            prompt_ids,
            prompt: prompt.to_owned(),
            answer: completion.trim().to_owned(),
        });
        Ok(Example { ids, learned, question, ..Example::default() })
    }

    fn text(&self, text: &str) -> Result<Example, EncodeError> {
        let mut ids = self.ids(text, true)?;
        self.finish(&mut ids);
        let learned = vec![Learned { tokens: 0..ids.len(), weight: 1.0 }];
        Ok(Example { ids, learned, ..Example::default() })
    }

    /// Adds the end-of-sequence token, unless the text or the tokenizer brought one.
    fn finish(&self, ids: &mut Vec<u32>) {
        if ids.last().is_none_or(|last| !self.tokenizer.eos().contains(last)) {
            ids.push(self.end);
        }
    }

    fn ids(&self, text: &str, add_special: bool) -> Result<Vec<u32>, EncodeError> {
        let encoded = self.tokenizer.encode(text, add_special);
        encoded.map_err(|error| EncodeError::Tokenizer(error.to_string()))
    }
}
