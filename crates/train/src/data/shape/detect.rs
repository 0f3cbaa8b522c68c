//! Tells the format from the first records.

use api::fault::Fault;
use api::run_spec::{Columns, Data, Format};

use super::super::read::Fields;
use super::error::{Place, list};

/// How many records are looked at.
pub(in crate::data) const SAMPLE_SIZE: usize = 50;

/// Why the format cannot be told.
#[derive(Debug)]
pub(in crate::data) enum Undetected {
    NoRecords,
    Unknown(Fault),
}

/// The format that most of the first `records` have. Mapped columns and a template decide alone.
pub(in crate::data) fn detect(records: &[Fields], data: &Data) -> Result<Format, Undetected> {
    if let Some(format) = stated(data) {
        return Ok(format);
    }
    let formats = [Format::Chat, Format::Completion, Format::Text];
    let votes = formats.map(|format| records.iter().filter(|fields| fits(fields, format)).count());
    let most = votes.iter().copied().max().unwrap_or(0);
    let winner = formats.into_iter().zip(votes).find(|(_, count)| *count == most);
    match (winner, records.first()) {
        (Some((format, 1..)), _) => Ok(format),
        (_, Some(first)) => Err(Undetected::Unknown(unknown(first))),
        (_, None) => Err(Undetected::NoRecords),
    }
}

fn stated(data: &Data) -> Option<Format> {
    let Columns { messages, prompt, completion, text } = &data.columns;
    match data.format {
        Format::Auto if data.template.is_some() => Some(Format::Completion),
        Format::Auto if messages.is_some() => Some(Format::Chat),
        Format::Auto if prompt.is_some() || completion.is_some() => Some(Format::Completion),
        Format::Auto if text.is_some() => Some(Format::Text),
        Format::Auto => None,
        stated => Some(stated),
    }
}

fn fits(fields: &Fields, format: Format) -> bool {
    let has = |name: &str| fields.contains_key(name);
    match format {
        Format::Chat => has("messages") || has("conversations"),
        Format::Completion => {
            (has("prompt") && has("completion")) || (has("instruction") && has("output"))
        }
        Format::Text => has("text"),
        Format::Auto => false,
    }
}

fn unknown(first: &Fields) -> Fault {
    let found = super::names(first);
    let pair = Place::Prompt.guess(&found).zip(Place::Completion.guess(&found));
    let hint = match (pair, Place::Messages.guess(&found)) {
        (_, Some(messages)) => format!("map it: spec.data.columns: {{messages: {messages}}}"),
        (Some((prompt, completion)), None) => {
            format!("map them: spec.data.columns: {{prompt: {prompt}, completion: {completion}}}")
        }
        (None, None) => "map them with spec.data.columns, or write spec.data.template".to_owned(),
    };
    Fault {
        message: format!(
            "the format cannot be told: records hold {}, and neither messages, nor prompt and \
             completion, nor text",
            list(&found)
        ),
        hint: Some(hint),
        ..Fault::default()
    }
}
