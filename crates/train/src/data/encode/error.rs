//! Why a sample cannot be tokenised as an example.

/// What is wrong with a sample, for this model.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::data) enum EncodeError {
    #[error("the tokenizer fails: {0}")]
    Tokenizer(String),
    #[error("{0}")]
    Template(String),
    #[error("the model has no chat template")]
    NoTemplate,
    #[error("the first message is the assistant's: nothing comes before it to answer")]
    NothingBefore,
    #[error("message {0} cannot be learned: the model's chat template rewrites what comes before")]
    Rewritten(usize),
    #[error("the model's chat template leaves out the call of the tool {0:?}")]
    ToolCall(String),
    #[error("the example has {0} tokens, none of which can be learned")]
    NothingLearned(usize),
    #[error("the example has {tokens} tokens, and at most {allowed} are allowed")]
    TooLong { tokens: usize, allowed: usize },
}

impl EncodeError {
    /// What to do next.
    pub(in crate::data) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Tokenizer(_) => return None,
            Self::NoTemplate => "take an instruction-tuned model",
            Self::NothingBefore => "start the conversation with a user message",
            Self::Template(_) => {
                "most templates want an optional system message, then user and assistant in turns"
            }
            Self::Rewritten(_) => "split the conversation into one record for each answer",
            Self::ToolCall(_) => "take a model that was made for tools, or remove the record",
            Self::NothingLearned(_) => "remove the record",
            Self::TooLong { .. } => {
                "raise spec.hyperparameters.maxSequenceLength, or set spec.data.overlong to \
                 Truncate or Drop"
            }
        };
        Some(hint.to_owned())
    }
}
