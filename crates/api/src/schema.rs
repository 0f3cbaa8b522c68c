//! Checks a document against the CRD's schema as the API server does, but names every fault and says
//! what was probably meant.
//!
//! What is refused is also taken out of the document, so that the rest can still be looked at and all
//! faults are told at once.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::formats;
use crate::later;
use crate::model_server::{self, ModelServer};
use crate::rules::{self, Table};
use crate::workspace::FineTuneWorkspace;

/// The custom resource definition, as generated from the types.
pub(crate) static CRD: LazyLock<CustomResourceDefinition> =
    LazyLock::new(|| ruled(FineTuneWorkspace::crd(), &rules::WORKSPACE));

/// The definition of `ModelServer`.
pub(crate) static SERVERS: LazyLock<CustomResourceDefinition> =
    LazyLock::new(|| ruled(ModelServer::crd(), &model_server::RULES));

/// The definition with the formats that the API server knows, and with these rules.
fn ruled(definition: CustomResourceDefinition, table: &Table) -> CustomResourceDefinition {
    let mut definition = formats::known(definition);
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut();
        if let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            rules::add(root, table);
        }
    }
    definition
}

/// The schema of `spec`.
pub(crate) fn spec() -> &'static JSONSchemaProps {
    spec_of(&CRD)
}

/// The schema of a `ModelServer`'s `spec`.
pub(crate) fn spec_of_servers() -> &'static JSONSchemaProps {
    spec_of(&SERVERS)
}

fn spec_of(definition: &CustomResourceDefinition) -> &JSONSchemaProps {
    let schema = definition.spec.versions.first().and_then(|version| version.schema.as_ref());
    let root = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    root.and_then(|root| property(root, "spec")).expect("the derive gives a spec")
}

fn property<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    schema.properties.as_ref().and_then(|properties| properties.get(name))
}

/// Checks `value`, which stands at `path`, and takes out of it what is refused; what is missing stays so,
/// until [`fill`]. `false` when the value as a whole is refused.
pub(crate) fn check(
    value: &mut Value,
    schema: &JSONSchemaProps,
    path: &str,
    faults: &mut Vec<Fault>,
) -> bool {
    let before = faults.len();
    match (schema.type_.as_deref(), &mut *value) {
        (Some("object"), Value::Object(map)) => return check_object(map, schema, path, faults),
        (Some("array"), Value::Array(items)) => return check_array(items, schema, path, faults),
        (Some("string"), Value::String(text)) => check_text(text, schema, path, faults),
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some("integer"), Value::Number(number))
            if number.as_f64().is_some_and(|x| x.fract() == 0.0) =>
        {
            check_range(number, schema, path, faults);
        }
        (Some("number"), Value::Number(number)) => check_range(number, schema, path, faults),
        (Some(wanted), found) => {
            let message = format!("must be {}, and is {}", article(wanted), describe(found));
            let hint = mistype_hint(schema, found);
            faults.push(Fault { field: field(path), message, hint, ..Fault::default() });
        }
    }
    faults.len() == before
}

fn check_object(
    map: &mut Map<String, Value>,
    schema: &JSONSchemaProps,
    path: &str,
    faults: &mut Vec<Fault>,
) -> bool {
    // As the API server does: an empty value is an unset one.
    map.retain(|_, value| !value.is_null());
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        map.retain(|name, value| check(value, values, &join(path, name), faults));
        return true;
    }
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return true;
    }
    let known: Vec<&str> =
        schema.properties.iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mut present: Vec<String> = map.keys().cloned().collect();
    map.retain(|name, value| {
        let path = join(path, name);
        if let Some(property) = property(schema, name) {
            return check(value, property, &path, faults);
        }
        faults.push(unknown(&path, name, &known));
        false
    });
    // A misspelt field is told once, and not also as a missing one.
    present.extend(
        present.clone().iter().filter_map(|name| suggestion(name, &known).map(str::to_owned)),
    );
    for missing in schema.required.iter().flatten().filter(|name| !present.contains(name)) {
        let hint =
            property(schema, missing).and_then(|s| s.description.as_deref()).map(first_sentence);
        let message = "is missing".to_owned();
        faults.push(Fault { field: Some(join(path, missing)), message, hint, ..Fault::default() });
    }
    true
}

fn check_array(
    items: &mut [Value],
    schema: &JSONSchemaProps,
    path: &str,
    faults: &mut Vec<Fault>,
) -> bool {
    let before = faults.len();
    if schema.min_items.is_some_and(|least| (items.len() as i64) < least) {
        faults.push(fault(path, "must not be empty"));
    }
    if let Some(most) = schema.max_items.filter(|most| (items.len() as i64) > *most) {
        faults.push(fault(path, format!("must not have more than {most} items")));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items {
        for (index, item) in items.iter_mut().enumerate() {
            check(item, of, &format!("{path}[{index}]"), faults);
        }
    }
    faults.len() == before
}

fn check_text(text: &str, schema: &JSONSchemaProps, path: &str, faults: &mut Vec<Fault>) {
    if let Some(values) = &schema.enum_ {
        let known: Vec<&str> = values.iter().filter_map(|value| value.0.as_str()).collect();
        if !known.contains(&text) {
            let message = format!("`{text}` is not one of {}", known.join(", "));
            let hint = suggestion(text, &known).map(|name| format!("did you mean `{name}`?"));
            faults.push(Fault { field: field(path), message, hint, ..Fault::default() });
        }
    }
    let length = text.chars().count() as i64;
    if schema.min_length.is_some_and(|least| length < least) {
        faults.push(fault(path, "must not be empty"));
    }
    if let Some(most) = schema.max_length.filter(|most| length > *most) {
        faults.push(fault(path, format!("must have at most {most} characters, and has {length}")));
    }
}

/// Puts something into every place that is needed and empty, so that the rest can be looked at. What is
/// said of these places is of no interest: that they are empty has been told.
pub(crate) fn fill(value: &mut Value, schema: &JSONSchemaProps) {
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().flatten() {
                if let (None, Some(property)) = (map.get(name), property(schema, name)) {
                    map.insert(name.clone(), blank(property));
                }
            }
            for (name, value) in map {
                if let Some(property) = property(schema, name) {
                    fill(value, property);
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items {
                for item in items.iter_mut() {
                    fill(item, of);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A value of the type that the schema asks for.
fn blank(schema: &JSONSchemaProps) -> Value {
    let first = schema.enum_.as_ref().and_then(|values| values.first());
    match (first, schema.type_.as_deref()) {
        (Some(first), _) => first.0.clone(),
        (None, Some("object")) => Value::Object(Map::new()),
        (None, Some("array")) => Value::Array(Vec::new()),
        (None, Some("boolean")) => Value::Bool(false),
        (None, Some("integer" | "number")) => Value::from(1),
        (None, _) => Value::String("x".to_owned()),
    }
}

fn check_range(
    number: &serde_json::Number,
    schema: &JSONSchemaProps,
    path: &str,
    faults: &mut Vec<Fault>,
) {
    let value = number.as_f64().unwrap_or(f64::NAN);
    if let Some(least) = schema.minimum.filter(|least| value < *least) {
        faults.push(fault(path, format!("must be at least {least}, and is {number}")));
    }
    if let Some(most) = schema.maximum.filter(|most| value > *most) {
        faults.push(fault(path, format!("must be at most {most}, and is {number}")));
    }
}

fn unknown(path: &str, name: &str, known: &[&str]) -> Fault {
    let field = field(path);
    if let Some(hint) = later::hint(path) {
        let message = "is not supported by this version".to_owned();
        return Fault { field, message, hint: Some(hint.to_owned()), ..Fault::default() };
    }
    let hint = match suggestion(name, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "write `{}`: there is nothing to set here".to_owned(),
        None => format!("the fields here are {}", known.join(", ")),
    };
    Fault {
        field,
        message: "is not a known field".to_owned(),
        hint: Some(hint),
        ..Fault::default()
    }
}

/// The known word that was probably meant.
pub fn suggestion<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(text);
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &plain(name)), *name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn fault(path: &str, message: impl Into<String>) -> Fault {
    Fault { field: field(path), message: message.into(), ..Fault::default() }
}

/// `path.name`, or `name` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn article(type_name: &str) -> &str {
    match type_name {
        "object" => "a block of fields",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(truth) => format!("{truth}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a block of fields".to_owned(),
    }
}

fn mistype_hint(schema: &JSONSchemaProps, found: &Value) -> Option<String> {
    match (schema.type_.as_deref(), found) {
        (Some("string"), Value::Number(_) | Value::Bool(_)) => {
            Some(format!("put it in quotes: \"{found}\""))
        }
        (Some("array"), Value::String(text)) => Some(format!("write it as `[{text}]`")),
        (Some("object"), Value::String(text)) if property(schema, text).is_some() => {
            Some(format!("write it as `{{{text}: {{}}}}`"))
        }
        (Some("object"), Value::String(text)) if property(schema, "path").is_some() => {
            Some(format!("write it as `{{path: {text}}}`"))
        }
        _ => None,
    }
}

/// The path of a fault; the document as a whole has none.
fn field(path: &str) -> Option<String> {
    (!path.is_empty()).then(|| path.to_owned())
}

fn first_sentence(text: &str) -> String {
    let sentence = text.split_once(". ").map_or(text, |(first, _)| first);
    let mut chars = sentence.trim_end_matches('.').replace('\n', " ").chars().collect::<Vec<_>>();
    if let Some(first) = chars.first_mut() {
        *first = first.to_ascii_lowercase();
    }
    chars.into_iter().collect()
}
