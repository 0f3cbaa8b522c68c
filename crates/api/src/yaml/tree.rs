//! YAML text to a JSON tree, with the line of each field path. Faults of syntax are told here.

use std::collections::BTreeMap;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, Span, StrInput};
use serde_json::{Map, Number, Value};

use crate::fault::Fault;
use crate::schema::join;

/// Nesting and size at which a document is refused: far above any real one, and low enough that a
/// hostile one harms nobody.
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 100_000;

/// The tree (where there is one), the line of each field path, and the faults.
pub(super) fn parse(text: &str) -> (Option<Value>, BTreeMap<String, u64>, Vec<Fault>) {
    let mut builder = Builder {
        parser: Parser::new_from_str(text.trim_start_matches('\u{feff}')),
        anchors: BTreeMap::new(),
        nodes: 0,
        lines: BTreeMap::new(),
        faults: Vec::new(),
    };
    let value = match builder.stream() {
        Ok(value) => value,
        Err(fault) => {
            builder.faults.push(fault);
            None
        }
    };
    (value, builder.lines, builder.faults)
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Value>,
    nodes: usize,
    lines: BTreeMap<String, u64>,
    faults: Vec<Fault>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                let message =
                    format!("cannot read YAML: {} (column {})", error.info(), marker.col() + 1);
                Err(at(*marker, "", message))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn stream(&mut self) -> Result<Option<Value>, Fault> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                first if document.is_none() => document = Some(self.node(first, span, "", 0)?),
                _ => {
                    let hint = Some("put each workspace into a file of its own".to_owned());
                    return Err(Fault {
                        hint,
                        ..at(span.start, "", "the file holds more than one document")
                    });
                }
            }
        }
        if document.as_ref().is_none_or(Value::is_null) {
            let hint = Some("start from one of deploy/samples".to_owned());
            return Err(Fault {
                message: "the file is empty".to_owned(),
                hint,
                ..Fault::default()
            });
        }
        Ok(document)
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: Span,
        path: &str,
        depth: usize,
    ) -> Result<Value, Fault> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(at(span.start, path, "is nested too deeply or is too large"));
        }
        self.lines.entry(path.to_owned()).or_insert(span.start.line() as u64);
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref());
                (self.scalar(scalar, span, path), anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(path, depth)?, anchor),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().unwrap_or_default();
                self.nodes += size(&value);
                (value, 0)
            }
            _ => return Err(at(span.start, path, "cannot read YAML: a value is missing")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn scalar(&mut self, scalar: Option<Scalar<'_>>, span: Span, path: &str) -> Value {
        let value = match scalar {
            Some(Scalar::Null) => Some(Value::Null),
            Some(Scalar::Boolean(truth)) => Some(Value::Bool(truth)),
            Some(Scalar::Integer(number)) => Some(Value::Number(number.into())),
            Some(Scalar::FloatingPoint(number)) => {
                Number::from_f64(number.into_inner()).map(Value::Number)
            }
            Some(Scalar::String(text)) => Some(Value::String(text.into_owned())),
            None => None,
        };
        value.unwrap_or_else(|| {
            self.faults.push(at(
                span.start,
                path,
                "must be a finite number, or a value that its tag allows",
            ));
            Value::Null
        })
    }

    fn sequence(&mut self, path: &str, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            let path = format!("{path}[{}]", items.len());
            items.push(self.node(event, span, &path, depth + 1)?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Value, Fault> {
        let mut map = Map::new();
        loop {
            let (event, span) = self.next()?;
            let name = match event {
                Event::MappingEnd => return Ok(Value::Object(map)),
                Event::Scalar(name, ..) => name.into_owned(),
                _ => return Err(at(span.start, path, "the name of a field must be text")),
            };
            let field = join(path, &name);
            let first = self.lines.get(&field).copied();
            if map.contains_key(&name) {
                let first = first.map_or(String::new(), |line| format!(": first on line {line}"));
                self.faults.push(at(span.start, &field, format!("is set twice{first}")));
            }
            self.lines.insert(field.clone(), span.start.line() as u64);
            let (event, span) = self.next()?;
            let value = self.node(event, span, &field, depth + 1)?;
            map.insert(name, value);
        }
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

fn at(marker: saphyr_parser::Marker, path: &str, message: impl Into<String>) -> Fault {
    let field = (!path.is_empty()).then(|| path.to_owned());
    Fault { line: Some(marker.line() as u64), field, message: message.into(), ..Fault::default() }
}
