//! Understands records: which format they have, and what each says.
//!
//! Knows the standard names of columns and the workspace's own; knows nothing of tokens.

mod chat;
mod detect;
mod error;

use api::fault::Fault;
use api::run_spec::{Data, Format};
use serde_json::Value;

use self::error::Place;
use super::read::{Fields, json_kind};
use super::sample::{Role, Sample};
use super::template::Templates;

pub(super) use detect::{SAMPLE_SIZE, Undetected, detect};
pub(super) use error::ShapeError;

/// Turns records into samples.
#[derive(Debug)]
pub(super) struct Shaper<'a> {
    data: &'a Data,
    format: Format,
    templates: Option<Templates>,
}

impl<'a> Shaper<'a> {
    /// `format` is what was stated or detected. Faults are mistakes in the workspace's fields.
    pub(super) fn new(data: &'a Data, format: Format) -> Result<Self, Vec<Fault>> {
        let mut faults = contradictions(data, format);
        let templates = match data.template.as_ref().map(Templates::compile).transpose() {
            Ok(templates) => templates,
            Err(more) => {
                faults.extend(more);
                None
            }
        };
        if faults.is_empty() { Ok(Self { data, format, templates }) } else { Err(faults) }
    }

    /// What one record says.
    pub(super) fn sample(&self, mut fields: Fields) -> Result<Sample, ShapeError> {
        let sample = match self.format {
            Format::Chat => chat::chat(&mut fields, &self.data.columns)?,
            Format::Completion | Format::Auto => self.completion(&mut fields)?,
            Format::Text => self.text(&mut fields)?,
        };
        self.check_label(&sample)?;
        Ok(sample)
    }

    fn completion(&self, fields: &mut Fields) -> Result<Sample, ShapeError> {
        if let Some(templates) = &self.templates {
            let (prompt, completion) = templates
                .render(fields)
                .map_err(|reason| ShapeError::Template { reason, found: names(fields) })?;
            return whole_completion(prompt, completion);
        }
        let columns = &self.data.columns;
        let mapped = columns.prompt.is_some() || columns.completion.is_some();
        if !mapped && !fields.contains_key("prompt") && fields.contains_key("instruction") {
            return alpaca(fields);
        }
        let prompt = columns.prompt.as_deref().unwrap_or("prompt");
        let completion = columns.completion.as_deref().unwrap_or("completion");
        if let (Some(Value::Array(_)), Some(Value::Array(_))) =
            (fields.get(prompt), fields.get(completion))
        {
            return chat::prompt_and_completion(fields, prompt, completion);
        }
        whole_completion(
            take_text(fields, prompt, Place::Prompt)?,
            take_text(fields, completion, Place::Completion)?,
        )
    }

    fn text(&self, fields: &mut Fields) -> Result<Sample, ShapeError> {
        let column = self.data.columns.text.as_deref().unwrap_or("text");
        let text = take_text(fields, column, Place::Text)?;
        if text.trim().is_empty() {
            return Err(ShapeError::Empty("text"));
        }
        Ok(Sample::Text(text))
    }

    fn check_label(&self, sample: &Sample) -> Result<(), ShapeError> {
        let labels = &self.data.labels;
        let Some(label) = answer(sample).map(str::trim) else { return Ok(()) };
        if labels.is_empty() || labels.iter().any(|known| known == label) {
            return Ok(());
        }
        Err(ShapeError::Label { label: label.to_owned(), labels: labels.clone() })
    }
}

/// What the model is asked to say last: the completion, or the last assistant turn.
pub(super) fn answer(sample: &Sample) -> Option<&str> {
    match sample {
        Sample::Chat(chat) => {
            let mut turns = chat.turns.iter().rev();
            turns.find(|turn| turn.role == Role::Assistant).map(|turn| &*turn.content)
        }
        Sample::Completion { completion, .. } => Some(completion),
        Sample::Text(_) => None,
    }
}

/// Fields that make no sense together with the format.
fn contradictions(data: &Data, format: Format) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut refuse = |field: &str, message: &str, hint: &str| {
        faults.push(Fault {
            field: Some(format!("spec.data.{field}")),
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
            ..Fault::default()
        });
    };
    if data.system.is_some() && format == Format::Text {
        refuse(
            "system",
            "a system message needs conversations, and the data is plain text",
            "leave it out, or map the columns with spec.data.columns",
        );
    }
    if data.template.is_some() && format != Format::Completion {
        refuse(
            "template",
            "a template makes prompt and completion, and the format is another one",
            "set spec.data.format: Completion, or leave it out",
        );
    }
    if !data.labels.is_empty() && format == Format::Text {
        refuse(
            "labels",
            "labels need prompts with completions, and the data is plain text",
            "leave the labels out, or map the columns with spec.data.columns",
        );
    }
    faults
}

fn whole_completion(prompt: String, completion: String) -> Result<Sample, ShapeError> {
    if prompt.trim().is_empty() {
        return Err(ShapeError::Empty("prompt"));
    }
    if completion.trim().is_empty() {
        return Err(ShapeError::Empty("completion"));
    }
    Ok(Sample::Completion { prompt, completion })
}

/// The prompt that Stanford's Alpaca was trained with (tatsu-lab/stanford_alpaca, `train.py`).
fn alpaca(fields: &mut Fields) -> Result<Sample, ShapeError> {
    let instruction = take_text(fields, "instruction", Place::Prompt)?;
    let output = take_text(fields, "output", Place::Completion)?;
    let input = match fields.get("input") {
        None | Some(Value::Null) => String::new(),
        Some(_) => take_text(fields, "input", Place::Prompt)?,
    };
    if instruction.trim().is_empty() {
        return Err(ShapeError::Empty("instruction"));
    }
    let task = "Below is an instruction that describes a task";
    let ask = "Write a response that appropriately completes the request.";
    let prompt = if input.trim().is_empty() {
        format!("{task}. {ask}\n\n### Instruction:\n{instruction}\n\n### Response:\n")
    } else {
        format!(
            "{task}, paired with an input that provides further context. {ask}\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        )
    };
    whole_completion(prompt, output)
}

/// The text in a column; numbers and booleans are taken as they are written.
fn take_text(fields: &mut Fields, column: &str, place: Place) -> Result<String, ShapeError> {
    match fields.get_mut(column) {
        None => Err(ShapeError::missing(column, place, fields)),
        Some(Value::String(text)) => Ok(std::mem::take(text)),
        Some(Value::Null) => Ok(String::new()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            Err(ShapeError::NotText { column: column.to_owned(), kind: json_kind(value) })
        }
    }
}

fn names(fields: &Fields) -> Vec<String> {
    fields.keys().cloned().collect()
}
