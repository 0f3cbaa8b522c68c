//! What an answer has to look like: JSON, or JSON by a schema. Which tokens may come next is worked out
//! by crate `llguidance`.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use lm::tokenizer::Tokenizer;
use serde_json::{Value, json};

/// Makes guides for one tokenizer.
pub struct Guides(ParserFactory);

/// Follows one answer.
pub struct Guide {
    matcher: Matcher,
    over: bool,
}

/// Why there is no guide.
#[derive(Debug, thiserror::Error)]
pub enum GuideError {
    #[error("cannot follow the schema: {0}")]
    Schema(String),
    #[error("cannot use the tokenizer for answers of a given form: {0}")]
    Tokenizer(String),
}

impl Guides {
    /// `vocabulary` is the number of logits.
    pub fn new(tokenizer: &Tokenizer, vocabulary: usize) -> Result<Self, GuideError> {
        let fault = |error: &dyn fmt::Display| GuideError::Tokenizer(error.to_string());
        let end = tokenizer.eos().first().copied().unwrap_or_default();
        let pieces = tokenizer.pieces();
        // Special tokens are marked, so that no text is ever taken for one.
        let special = |id| {
            let name = tokenizer.token(id).unwrap_or_default();
            [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat()
        };
        let words: Vec<Vec<u8>> = (0..vocabulary as u32)
            .map(|id| pieces.bytes(id).unwrap_or_else(|| special(id)))
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocabulary as u32, end), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| fault(&e))?;
        factory.quiet();
        Ok(Self(factory))
    }

    /// A guide along a JSON schema.
    ///
    /// Between its parts the answer has at most one blank: a small model that is let write as many as
    /// it likes writes nothing else.
    pub fn along(&self, mut schema: Value) -> Result<Guide, GuideError> {
        if let Some(schema) = schema.as_object_mut() {
            let form = json!({
                "item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": false,
            });
            schema.insert("x-guidance".to_owned(), form);
        }
        let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(GuideError::Schema(error)),
            None => Ok(Guide { matcher, over: false }),
        }
    }
}

impl Guide {
    /// The same, for another answer.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), over: self.over }
    }

    /// A bit for each token that may come next; the ends where there is nothing more to say.
    pub(crate) fn allowed(&mut self, ends: &[u32]) -> Vec<u32> {
        let mask = if self.over { None } else { self.matcher.compute_mask_or_eos().ok() };
        let mut bits = mask.map_or_else(Vec::new, |mask| mask.as_slice().to_vec());
        if bits.iter().all(|word| *word == 0) {
            for end in ends {
                let word = *end as usize / 32;
                if bits.len() <= word {
                    bits.resize(word + 1, 0);
                }
                bits[word] |= 1 << (end % 32);
            }
        }
        bits
    }

    /// Takes note of a token; whether the answer is complete with it.
    pub(crate) fn take(&mut self, token: u32) -> bool {
        self.over |= self.matcher.consume_token(token).is_err() || self.matcher.is_stopped();
        self.over
    }
}

impl fmt::Debug for Guides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guides")
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").field("over", &self.over).finish_non_exhaustive()
    }
}
