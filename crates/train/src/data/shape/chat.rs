//! Conversations: OpenAI's `messages` and ShareGPT's `conversations`.

use api::run_spec::Columns;
use serde_json::{Map, Value, json};

use super::super::read::{Fields, json_kind};
use super::super::sample::{Chat, Role, Sample, Turn};
use super::error::{Place, ShapeError};

/// A conversation in which every assistant turn is learned, unless it has a weight of its own.
pub(super) fn chat(fields: &mut Fields, columns: &Columns) -> Result<Sample, ShapeError> {
    let column = match &columns.messages {
        Some(column) => column,
        None if !fields.contains_key("messages") && fields.contains_key("conversations") => {
            "conversations"
        }
        None => "messages",
    };
    let mut turns = take_turns(fields, column, 0)?;
    // LLaMA-Factory keeps the system message of a ShareGPT record beside the conversation.
    let own_system = turns.first().is_some_and(|turn| turn.role == Role::System);
    if let (false, Some(Value::String(system))) = (own_system, fields.get("system"))
        && !system.trim().is_empty()
    {
        let (role, content, extra) = (Role::System, system.clone(), Map::new());
        turns.insert(0, Turn { role, content, weight: 0.0, extra });
    }
    finish(turns, fields)
}

/// TRL's conversational prompt and completion: only the completion's messages are learned.
pub(super) fn prompt_and_completion(
    fields: &mut Fields,
    prompt: &str,
    completion: &str,
) -> Result<Sample, ShapeError> {
    let mut turns = take_turns(fields, prompt, 0)?;
    for turn in &mut turns {
        turn.weight = 0.0;
    }
    let answer = take_turns(fields, completion, turns.len())?;
    turns.extend(answer);
    finish(turns, fields)
}

fn finish(turns: Vec<Turn>, fields: &mut Fields) -> Result<Sample, ShapeError> {
    for (index, turn) in turns.iter().enumerate() {
        if turn.role == Role::System && index > 0 {
            return Err(ShapeError::LateSystem(index + 1));
        }
    }
    if !turns.iter().any(|turn| turn.role == Role::Assistant) {
        return Err(ShapeError::NoAssistant);
    }
    if turns.iter().all(|turn| turn.weight == 0.0) {
        return Err(ShapeError::NothingWeighted);
    }
    Ok(Sample::Chat(Chat { turns, tools: take_tools(fields) }))
}

/// `tools` is a list, or a list written as a JSON string.
fn take_tools(fields: &mut Fields) -> Option<Value> {
    let tools = match fields.remove("tools")? {
        Value::String(text) => serde_json::from_str(&text).ok()?,
        other => other,
    };
    tools.as_array().is_some_and(|list| !list.is_empty()).then_some(tools)
}

/// The messages in `column`; `before` messages come before them, for numbers in errors.
fn take_turns(fields: &mut Fields, column: &str, before: usize) -> Result<Vec<Turn>, ShapeError> {
    let Some(value) = fields.get_mut(column).map(Value::take) else {
        return Err(ShapeError::missing(column, Place::Messages, fields));
    };
    // CSV and some Parquet files hold the list as a JSON string.
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let messages = match parsed.unwrap_or(value) {
        Value::Array(messages) => messages,
        other => {
            let (column, kind) = (column.to_owned(), json_kind(&other));
            return Err(ShapeError::NotMessages { column, kind });
        }
    };
    if messages.is_empty() {
        return Err(ShapeError::Empty("list of messages"));
    }
    let numbered = messages.into_iter().zip(before + 1..);
    numbered.map(|(message, number)| turn(message, number)).collect()
}

fn turn(message: Value, number: usize) -> Result<Turn, ShapeError> {
    let Value::Object(mut message) = message else {
        return Err(ShapeError::NotAMessage(number, json_kind(&message)));
    };
    // Parquet has every key in every message, so an absent one is a null.
    message.retain(|_, value| !value.is_null());
    let name = message.remove("role").or_else(|| message.remove("from"));
    let Some(name) = name.as_ref().and_then(Value::as_str) else {
        return Err(ShapeError::NoRole(number));
    };
    let Some(role) = Role::parse(name) else {
        return Err(ShapeError::UnknownRole { number, role: name.to_owned() });
    };
    let weight = weight(role, message.remove("weight"), number)?;
    let calls = message.contains_key("tool_calls");
    let content = match message.remove("content").or_else(|| message.remove("value")) {
        Some(content) => text_content(content, number)?,
        None if calls => String::new(),
        None => return Err(ShapeError::NoContent(number)),
    };
    if name == "function_call" {
        return function_call(&content, weight, number);
    }
    if content.trim().is_empty() && !calls && role != Role::Tool {
        return Err(ShapeError::EmptyMessage { number, role: role.as_str() });
    }
    parse_arguments(&mut message);
    Ok(Turn { role, content, weight, extra: message })
}

fn weight(role: Role, value: Option<Value>, number: usize) -> Result<f32, ShapeError> {
    let weight = match value {
        None => 1.0,
        Some(value) => match value.as_f64() {
            Some(weight) if weight >= 0.0 => weight as f32,
            _ => return Err(ShapeError::Weight { number, weight: value.to_string() }),
        },
    };
    Ok(if role == Role::Assistant { weight } else { 0.0 })
}

/// A string, or OpenAI's list of text parts.
fn text_content(content: Value, number: usize) -> Result<String, ShapeError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            return Err(ShapeError::ContentKind { number, kind: json_kind(&other).to_owned() });
        }
    };
    let mut text = String::new();
    for part in &parts {
        let Some(piece) = part.get("text").and_then(Value::as_str) else {
            let kind = part.get("type").and_then(Value::as_str).unwrap_or("unknown");
            return Err(ShapeError::ContentKind { number, kind: format!("of type {kind}") });
        };
        text.push_str(piece);
    }
    Ok(text)
}

/// ShareGPT's `function_call` turn: the value is `{"name": …, "arguments": …}` as JSON.
fn function_call(content: &str, weight: f32, number: usize) -> Result<Turn, ShapeError> {
    let call = serde_json::from_str::<Value>(content).ok();
    let Some(call) = call.filter(|call| call.get("name").is_some_and(Value::is_string)) else {
        let kind = "no JSON object with name and arguments".to_owned();
        return Err(ShapeError::ContentKind { number, kind });
    };
    let mut extra = Map::new();
    extra.insert("tool_calls".to_owned(), json!([{"type": "function", "function": call}]));
    parse_arguments(&mut extra);
    Ok(Turn { role: Role::Assistant, content: String::new(), weight, extra })
}

/// OpenAI writes a call's arguments as a JSON string; chat templates expect the object.
fn parse_arguments(message: &mut Map<String, Value>) {
    let Some(Value::Array(calls)) = message.get_mut("tool_calls") else { return };
    for call in calls {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        if let Some(parsed) = arguments.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            *arguments = parsed;
        }
    }
}
