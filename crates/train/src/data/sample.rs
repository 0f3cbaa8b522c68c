//! What a record says, before it is turned into tokens.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// One example as text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sample {
    /// A conversation: what the assistant says is learned.
    Chat(Chat),
    /// The completion is learned.
    Completion { prompt: String, completion: String },
    /// Everything is learned.
    Text(String),
}

/// A conversation with the tools that the assistant may call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chat {
    pub(super) turns: Vec<Turn>,
    pub(super) tools: Option<Value>,
}

impl Chat {
    /// A prompt as a user's message, and its completion as the answer.
    pub(super) fn of_one_answer(prompt: &str, completion: &str) -> Self {
        let turn = |role, text: &str, weight| Turn {
            role,
            content: text.to_owned(),
            weight,
            extra: Map::new(),
        };
        let turns = vec![turn(Role::User, prompt, 0.0), turn(Role::Assistant, completion, 1.0)];
        Self { turns, tools: None }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) content: String,
    /// Weight of this turn's tokens in the loss; 0 for everyone but the assistant.
    pub(super) weight: f32,
    /// What else the message holds, such as `tool_calls`, for the chat template.
    pub(super) extra: Map<String, Value>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    pub(super) const NAMES: [&'static str; 4] = ["system", "user", "assistant", "tool"];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// OpenAI's names and ShareGPT's. `developer` is OpenAI's newer name for `system`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" | "function_call" => Some(Self::Assistant),
            "tool" | "observation" | "function" => Some(Self::Tool),
            _ => None,
        }
    }
}

/// SHA-256 of a sample's content: equal samples have equal hashes, whatever else is set.
pub(super) type ContentHash = [u8; 32];

impl Sample {
    /// The hash that finds copies and assigns splits. A system message of the workspace is not part
    /// of it: changing that must not move examples between splits.
    pub(super) fn content_hash(&self) -> ContentHash {
        let canonical = match self {
            Self::Chat(chat) => {
                let turns = chat.turns.iter().map(|turn| {
                    let weight = f64::from(turn.weight);
                    (turn.role.as_str(), &turn.content, weight, sorted(&turn.extra))
                });
                serde_json::to_vec(&("chat", turns.collect::<Vec<_>>(), &chat.tools))
            }
            Self::Completion { prompt, completion } => {
                serde_json::to_vec(&("completion", prompt, completion))
            }
            Self::Text(text) => serde_json::to_vec(&("text", text)),
        };
        Sha256::digest(canonical.expect("texts, numbers and JSON values are JSON")).into()
    }
}

/// The entries by name, since their order means nothing.
fn sorted(extra: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = extra.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}
