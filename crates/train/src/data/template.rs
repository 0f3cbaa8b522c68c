//! The workspace's own templates, which make prompt and completion from a record's columns.
//!
//! minijinja, with two differences from its defaults: a column that a record lacks is an error,
//! and `tojson` writes what Python's `json.dumps(value, ensure_ascii=False)` writes, as chat
//! templates do, and not JSON that is escaped for HTML.

use std::io::{self, Write};

use api::fault::Fault;
use api::run_spec::PromptTemplate;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::read::Fields;

const PROMPT: &str = "prompt";
const COMPLETION: &str = "completion";

/// Both templates, compiled.
#[derive(Debug)]
pub(super) struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Compiles both; each mistake is a fault with the field it is in.
    pub(super) fn compile(source: &PromptTemplate) -> Result<Self, Vec<Fault>> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("tojson", to_json);
        let mut faults = Vec::new();
        for (name, text) in [(PROMPT, &source.prompt), (COMPLETION, &source.completion)] {
            if let Err(error) = environment.add_template_owned(name, text.clone()) {
                faults.push(Fault {
                    field: Some(format!("spec.data.template.{name}")),
                    message: reason(&error),
                    hint: Some("templates are Jinja: `{{ column }}` is a value".to_owned()),
                    ..Fault::default()
                });
            }
        }
        if faults.is_empty() { Ok(Self { environment }) } else { Err(faults) }
    }

    /// Prompt and completion of one record, or why there are none.
    pub(super) fn render(&self, fields: &Fields) -> Result<(String, String), String> {
        let context = Value::from(Serde(fields));
        let render = |name: &str| {
            let template = self.environment.get_template(name).map_err(|error| reason(&error))?;
            let context = context.clone();
            template.render(context).map_err(|error| format!("{name}: {}", reason(&error)))
        };
        Ok((render(PROMPT)?, render(COMPLETION)?))
    }
}

/// The error in one line.
fn reason(error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::UndefinedError => "a column or field is missing".to_owned(),
        kind => kind.to_string(),
    };
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line} of the template)"));
    format!("{what}{detail}{}", line.unwrap_or_default())
}

fn to_json(value: &Value) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonSpacing);
    let failed =
        |error: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, error.to_string());
    value.serialize(&mut serializer).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

/// `, ` and `: ` between values, as `json.dumps` has it.
struct PythonSpacing;

impl Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}
