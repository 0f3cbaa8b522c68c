//! What can be wrong with what a record says, in the user's words.

use super::super::read::Fields;
use super::super::sample::Role;

/// Why a record is no example.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::data) enum ShapeError {
    #[error("there is no column {wanted:?}; the record has {}", list(found))]
    MissingColumn { wanted: String, place: Place, found: Vec<String> },
    #[error("{column:?} is {kind}, not text")]
    NotText { column: String, kind: &'static str },
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("spec.data.template.{reason}; the record has {}", list(found))]
    Template { reason: String, found: Vec<String> },
    #[error("the answer {label:?} is not one of the labels {}", list(labels))]
    Label { label: String, labels: Vec<String> },
    #[error("{column:?} is {kind}, not a list of messages")]
    NotMessages { column: String, kind: &'static str },
    #[error("message {0} is {1}, not an object with role and content")]
    NotAMessage(usize, &'static str),
    #[error("message {0} has no role")]
    NoRole(usize),
    #[error("message {number} has the role {role:?}")]
    UnknownRole { number: usize, role: String },
    #[error("message {0} has no content")]
    NoContent(usize),
    #[error("message {number} ({role}) is empty")]
    EmptyMessage { number: usize, role: &'static str },
    #[error("the content of message {number} is {kind}, not text")]
    ContentKind { number: usize, kind: String },
    #[error("message {0} is a system message, but not the first")]
    LateSystem(usize),
    #[error("message {number} has the weight {weight}")]
    Weight { number: usize, weight: String },
    #[error("no assistant turn: there is nothing to learn")]
    NoAssistant,
    #[error("every assistant turn has the weight 0: there is nothing to learn")]
    NothingWeighted,
}

/// The part that a column plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) enum Place {
    Messages,
    Prompt,
    Completion,
    Text,
}

impl Place {
    fn field(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Prompt => "prompt",
            Self::Completion => "completion",
            Self::Text => "text",
        }
    }

    /// Names that people give to such a column.
    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["conversation", "dialog", "dialogue", "chat", "turns"],
            Self::Prompt => &["question", "query", "input", "instruction", "source", "problem"],
            Self::Completion => {
                &["answer", "response", "output", "label", "target", "solution", "summary"]
            }
            Self::Text => &["content", "body", "document", "sentence"],
        }
    }

    /// The column among `found` that most likely plays this part.
    pub(super) fn guess(self, found: &[String]) -> Option<&str> {
        let usual = self
            .usual_names()
            .iter()
            .find_map(|name| found.iter().find(|column| column.trim().eq_ignore_ascii_case(name)));
        usual
            .map(|name| &**name)
            .or_else(|| closest(self.field(), found.iter().map(|name| &**name)))
    }
}

impl ShapeError {
    pub(super) fn missing(wanted: &str, place: Place, fields: &Fields) -> Self {
        Self::MissingColumn { wanted: wanted.to_owned(), place, found: super::names(fields) }
    }

    /// Whether every record of a table has the same mistake.
    pub(in crate::data) fn is_of_the_header(&self) -> bool {
        matches!(self, Self::MissingColumn { .. })
    }

    /// What to do next.
    pub(in crate::data) fn hint(&self) -> String {
        match self {
            Self::MissingColumn { wanted, place, found } => {
                let near = closest(wanted, found.iter().map(|name| &**name));
                let column = near.or_else(|| place.guess(found)).unwrap_or("COLUMN");
                format!("name the column: spec.data.columns.{}: {column}", place.field())
            }
            Self::NotText { .. } => {
                "write it as text with spec.data.template and the filter tojson".to_owned()
            }
            Self::Empty(_) | Self::EmptyMessage { .. } | Self::NoContent(_) => {
                "fill it, or remove the record".to_owned()
            }
            Self::Template { .. } => "use `{{ column | default('') }}` for a column that some \
                                      records lack"
                .to_owned(),
            Self::Label { label, labels } => {
                match closest(label, labels.iter().map(|known| &**known)) {
                    Some(near) => format!("did you mean {near:?}? or add it to spec.data.labels"),
                    None => "correct the record, or add it to spec.data.labels".to_owned(),
                }
            }
            Self::NotMessages { .. } | Self::NotAMessage(..) | Self::NoRole(_) => {
                "write messages as [{\"role\": \"user\", \"content\": \"…\"}, …]".to_owned()
            }
            Self::UnknownRole { role, .. } => {
                let near = closest(role, Role::NAMES.iter().copied());
                let near = near.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                format!("roles are {}{near}", Role::NAMES.join(", "))
            }
            Self::ContentKind { .. } => {
                "only text can be learned; leave other parts out".to_owned()
            }
            Self::LateSystem(_) => {
                "put the system message first, or make it a user turn".to_owned()
            }
            Self::Weight { .. } => "a weight is a number from 0 (not learned) upwards".to_owned(),
            Self::NoAssistant => "end each conversation with an assistant message".to_owned(),
            Self::NothingWeighted => {
                "give one turn a weight above 0, or remove the record".to_owned()
            }
        }
    }
}

/// The name that `word` is most likely a misspelling of.
fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&word, &name.trim().to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

/// `a, b and c`; long lists are cut.
pub(super) fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names {
        [] => "no columns".to_owned(),
        [one] => one.clone(),
        [start @ .., last] if names.len() <= SHOWN => format!("{} and {last}", start.join(", ")),
        _ => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
    }
}
