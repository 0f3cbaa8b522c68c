//! Chat templates: Jinja programs that come with a model and turn a conversation into text.
//!
//! Rendering follows transformers' `apply_chat_template`: the same functions and filters, block trimming,
//! Python's string methods, `json.dumps` spacing, and special tokens as variables.

mod python;

pub(crate) use python::now;

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name that errors give to the template.
const NAME: &str = "chat_template";

/// One message of a conversation. Fields beside role and content (`tool_calls`, `name`, …) are kept for
/// the template to use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    /// A text as a rule; some templates also take a list of parts, or nothing beside tool calls.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub content: Value,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Value::String(content.into()), extra: Map::new() }
    }

    /// The content where it is plain text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_str()
    }
}

/// Why a conversation cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The template is not a Jinja template that can be read.
    #[error("cannot read the model's chat template: line {line}: {reason}")]
    Syntax { line: usize, reason: String },
    /// The template itself refused the conversation.
    #[error("the model's chat template refuses the conversation: {message}")]
    Refused { message: String },
    /// The template failed while it ran.
    #[error("cannot render the model's chat template: line {line}: {reason}")]
    Render { line: usize, reason: String },
    /// There is nothing to render.
    #[error("cannot render a conversation without messages")]
    Empty,
}

impl ChatError {
    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Syntax { .. } | Self::Render { .. } => {
                "put a corrected chat_template.jinja into the model's folder"
            }
            Self::Refused { .. } => "check the order and the roles of the messages",
            Self::Empty => return None,
        };
        Some(text.to_owned())
    }
}

/// A model's chat template, compiled.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    compiled: Result<Environment<'static>, ChatError>,
    /// The template used instead where there are tools, if the model has one.
    with_tools: Option<Box<Self>>,
    /// `bos_token`, `eos_token` and their like, as variables for the template.
    special_tokens: BTreeMap<String, String>,
    now: Option<i64>,
}

impl ChatTemplate {
    /// Compiles `source`. A faulty template is an error only when it is rendered, since a model can be
    /// trained on plain text without it.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Self {
        Self {
            source: source.to_owned(),
            compiled: compile(source),
            with_tools: None,
            special_tokens,
            now: None,
        }
    }

    /// Uses `source` instead for conversations with tools.
    #[must_use]
    pub fn with_tools_template(mut self, source: &str) -> Self {
        self.with_tools = Some(Box::new(Self::new(source, self.special_tokens.clone())));
        self
    }

    /// Fixes the time that `strftime_now` tells, in seconds since 1970 (UTC), so that the same data give
    /// the same text on another day.
    #[must_use]
    pub fn at(mut self, unix_seconds: i64) -> Self {
        self.now = Some(unix_seconds);
        if let Some(tools) = self.with_tools.take() {
            self.with_tools = Some(Box::new(tools.at(unix_seconds)));
        }
        self
    }

    /// Whether what is rendered can depend on the time.
    pub fn tells_time(&self) -> bool {
        let tools = self.with_tools.as_deref();
        self.source.contains("strftime_now") || tools.is_some_and(Self::tells_time)
    }

    /// The template's own text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of the template for conversations with tools, where there is another one.
    pub fn tools_source(&self) -> Option<&str> {
        self.with_tools.as_deref().map(Self::source)
    }

    /// Renders a conversation. `add_generation_prompt` ends the text where an answer begins.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        tools: Option<&Value>,
    ) -> Result<String, ChatError> {
        self.conversation(messages, tools).render(messages.len(), add_generation_prompt)
    }

    /// A conversation to be rendered more than once.
    pub fn conversation(&self, messages: &[Message], tools: Option<&Value>) -> Conversation<'_> {
        let template = match (&self.with_tools, tools) {
            (Some(other), Some(_)) => other,
            _ => self,
        };
        let mut context: BTreeMap<&str, minijinja::Value> = template
            .special_tokens
            .iter()
            .map(|(name, token)| (name.as_str(), token.as_str().into()))
            .collect();
        context.insert("tools", tools.map_or(().into(), |tools| Serde(tools).into()));
        context.insert("documents", ().into());
        context.insert(python::NOW, template.now.map_or(().into(), Into::into));
        let messages = messages.iter().map(|message| Serde(as_json(message)).into()).collect();
        Conversation { template, messages, context }
    }
}

/// Messages and what else the template sees, ready to be rendered.
#[derive(Debug)]
pub struct Conversation<'a> {
    template: &'a ChatTemplate,
    messages: Vec<minijinja::Value>,
    context: BTreeMap<&'a str, minijinja::Value>,
}

impl Conversation<'_> {
    /// The text of the first `count` messages.
    pub fn render(&self, count: usize, add_generation_prompt: bool) -> Result<String, ChatError> {
        let messages = self.messages.get(..count).filter(|messages| !messages.is_empty());
        let messages = messages.ok_or(ChatError::Empty)?.to_vec();
        let environment = self.template.compiled.as_ref().map_err(Clone::clone)?;
        let mut context = self.context.clone();
        context.insert("messages", messages.into());
        context.insert("add_generation_prompt", add_generation_prompt.into());
        let template = environment.get_template(NAME).map_err(|error| fault(&error))?;
        template.render(context).map_err(|error| fault(&error))
    }
}

/// A message as the template sees it: fields that are null are not there.
fn as_json(message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("role".to_owned(), Value::String(message.role.clone()));
    if !message.content.is_null() {
        fields.insert("content".to_owned(), message.content.clone());
    }
    for (name, value) in message.extra.iter().filter(|(_, value)| !value.is_null()) {
        fields.insert(name.clone(), value.clone());
    }
    Value::Object(fields)
}

fn compile(source: &str) -> Result<Environment<'static>, ChatError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| syntax_fault(&error))?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    python::install(&mut environment);
    environment
        .add_template_owned(NAME, without_generation_tags(source))
        .map_err(|error| syntax_fault(&error))?;
    Ok(environment)
}

/// `{% generation %}` only marks the assistant's part for transformers and renders what it holds. Here it
/// becomes a condition that always holds, which leaves the white space rules as they are.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        let inner = tag.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        let replacement = match inner.trim() {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        text.push_str(&rest[..start + 2]);
        text.push_str(&replacement.map_or(tag.to_owned(), |new| tag.replace(inner.trim(), new)));
        rest = &rest[start + length..];
    }
    text.push_str(rest);
    text
}

fn fault(error: &Error) -> ChatError {
    // `raise_exception` is the template's way to refuse; a macro may have wrapped its error.
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref::<Error>()
            && let Some(message) = found.detail().and_then(|text| text.strip_prefix(python::RAISED))
        {
            return ChatError::Refused { message: message.to_owned() };
        }
        cause = current.source();
    }
    ChatError::Render { line: line(error), reason: reason(error) }
}

fn syntax_fault(error: &Error) -> ChatError {
    ChatError::Syntax { line: line(error), reason: reason(error) }
}

fn line(error: &Error) -> usize {
    error.line().unwrap_or_default()
}

fn reason(error: &Error) -> String {
    let kind: ErrorKind = error.kind();
    error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}"))
}
