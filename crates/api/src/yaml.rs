//! The one module that reads YAML: text in, a workspace or all of its faults out, each with field path
//! and line.
//!
//! The text becomes a tree whose lines are remembered by field path, the tree is held against the CRD's
//! schema ([`crate::schema`]), what is sound of it is deserialised, and [`crate::validate`] looks at the
//! rest. It reads no file.

mod tree;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::fault::Fault;
use crate::model_server::{self, ModelServer};
use crate::schema;
use crate::valid::Workspace;
use crate::validate::validate;
use crate::workspace::{API_VERSION, FineTuneWorkspace, KIND};

/// A workspace as it was written, and where in the file each field stands.
#[derive(Clone, Debug)]
pub struct Document {
    pub workspace: FineTuneWorkspace,
    pub positions: Positions,
}

/// Where each field of a file stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    file: String,
    /// Field path to line, from 1.
    lines: BTreeMap<String, u64>,
}

impl Positions {
    /// Puts file and line on a fault that was found by its field path alone: the line of the field, or of
    /// the nearest field around it that is in the file.
    #[must_use]
    pub fn locate(&self, fault: Fault) -> Fault {
        if fault.file.is_some() {
            return fault;
        }
        let line = fault.line.or_else(|| fault.field.as_deref().and_then(|field| self.line(field)));
        Fault { file: Some(self.file.clone()), line, ..fault }
    }

    fn sorted(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let mut faults: Vec<Fault> = faults.into_iter().map(|fault| self.locate(fault)).collect();
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// Line of a field, or of the nearest one around it.
    pub fn line(&self, field: &str) -> Option<u64> {
        let mut path = field;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// A workspace as YAML.
pub fn to_text(workspace: &FineTuneWorkspace) -> String {
    serde_yaml::to_string(workspace).expect("a workspace holds nothing that YAML cannot")
}

/// Reads and validates a workspace. `file` is the name to show; `text` its content.
pub fn load(file: &str, text: &str) -> Result<(Workspace, Document), Vec<Fault>> {
    let (workspace, positions, mut faults) = read::<FineTuneWorkspace>(file, text, &DOCUMENT);
    let mut valid = None;
    if let Some(raw) = &workspace {
        match validate(raw) {
            Ok(workspace) => valid = Some(workspace),
            Err(more) => {
                let more: Vec<Fault> =
                    more.into_iter().filter(|fault| !is_told(&faults, fault)).collect();
                faults.extend(more);
            }
        }
    }
    match (valid, workspace) {
        (Some(valid), Some(workspace)) if faults.is_empty() => {
            Ok((valid, Document { workspace, positions }))
        }
        _ => Err(positions.sorted(faults)),
    }
}

/// Reads and validates a `ModelServer`. `file` is the name to show; `text` its content.
pub fn load_server(file: &str, text: &str) -> Result<ModelServer, Vec<Fault>> {
    static DOCUMENT: LazyLock<JSONSchemaProps> =
        LazyLock::new(|| document(model_server::KIND, schema::spec_of_servers()));
    let (server, positions, mut faults) = read::<ModelServer>(file, text, &DOCUMENT);
    let more = server.as_ref().map(model_server::faults).unwrap_or_default();
    let more: Vec<Fault> = more.into_iter().filter(|fault| !is_told(&faults, fault)).collect();
    faults.extend(more);
    match server {
        Some(server) if faults.is_empty() => Ok(server),
        _ => Err(positions.sorted(faults)),
    }
}

/// Whether a fault was already told of the field itself, of one inside it or of one around it: what was
/// refused there was taken out, and rules over the rest may then see too little.
fn is_told(faults: &[Fault], new: &Fault) -> bool {
    let inside = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let new = new.field.as_deref().unwrap_or_default();
    let elsewhere = LOOKS_AT.iter().filter(|(block, _)| inside(new, block));
    let elsewhere: Vec<&str> = elsewhere.flat_map(|(_, fields)| fields.iter().copied()).collect();
    faults.iter().filter_map(|fault| fault.field.as_deref()).any(|old| {
        inside(old, new)
            || inside(new, old)
            || elsewhere.iter().any(|looked_at| inside(looked_at, old))
    })
}

/// Rules of these blocks look at these fields of other ones: where one of them was refused as a whole, they
/// see too little.
const LOOKS_AT: &[(&str, &[&str])] = &[
    ("spec.earlyStopping", &["spec.data.validation"]),
    (
        "spec.evaluation",
        &["spec.data.validation", "spec.data.test", "spec.data.labels", "spec.data.format"],
    ),
];

/// What could be read, with every fault of form.
fn read<T: DeserializeOwned>(
    file: &str,
    text: &str,
    document: &JSONSchemaProps,
) -> (Option<T>, Positions, Vec<Fault>) {
    let (value, lines, mut faults) = tree::parse(text);
    let positions = Positions { file: file.to_owned(), lines };
    let Some(mut value) = value else {
        for fault in &mut faults {
            fault.hint = fault.hint.take().or_else(|| tabs(text));
        }
        return (None, positions, faults);
    };
    let foreign = is_foreign(&value, document);
    let sound = schema::check(&mut value, document, "", &mut faults);
    if foreign {
        // Its fields are those of another kind, and say nothing.
        faults.retain(|fault| fault.field.as_deref() == Some("kind"));
    }
    if foreign || !sound {
        return (None, positions, faults);
    }
    // What contradicts itself is told beside what is missing.
    schema::fill(&mut value, document);
    match serde_json::from_value(value) {
        Ok(object) => (Some(object), positions, faults),
        Err(error) => {
            // Whatever the schema lets through deserialises, except where something was taken out.
            if faults.is_empty() {
                faults.push(Fault { message: error.to_string(), ..Fault::default() });
            }
            (None, positions, faults)
        }
    }
}

/// Whether a document is of another kind, and not of this one misspelt.
fn is_foreign(value: &serde_json::Value, document: &JSONSchemaProps) -> bool {
    let kinds = document.properties.as_ref().and_then(|properties| properties.get("kind"));
    let kinds = kinds.and_then(|kind| kind.enum_.as_ref()).into_iter().flatten();
    let kinds: Vec<&str> = kinds.filter_map(|kind| kind.0.as_str()).collect();
    let kind = value.get("kind").and_then(serde_json::Value::as_str);
    kind.is_some_and(|kind| !kinds.contains(&kind) && schema::suggestion(kind, &kinds).is_none())
}

/// The usual reason why a text that looks right is no YAML.
fn tabs(text: &str) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let line = text.lines().position(|line| line[..indent(line)].contains('\t'))?;
    Some(format!("line {} is indented with a tab: YAML wants spaces", line + 1))
}

/// Schema of a workspace's document.
static DOCUMENT: LazyLock<JSONSchemaProps> = LazyLock::new(|| document(KIND, schema::spec()));

/// Schema of a whole document. The CRD's own says nothing of `metadata`, which the API server knows.
fn document(kind: &str, spec: &JSONSchemaProps) -> JSONSchemaProps {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let any = json!({"x-kubernetes-preserve-unknown-fields": true});
    serde_json::from_value(json!({
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "enum": [API_VERSION], "description": format!("write `apiVersion: {API_VERSION}`")},
            "kind": {"type": "string", "enum": [kind], "description": format!("write `kind: {kind}`")},
            "metadata": {
                "type": "object",
                "description": "write `metadata: {name: …}`",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "description": "The run is named after it"},
                    "namespace": text, "labels": texts, "annotations": texts,
                    "uid": any, "resourceVersion": any, "generation": any, "creationTimestamp": any,
                    "managedFields": any, "ownerReferences": any, "finalizers": any,
                }
            },
            "spec": spec,
            "status": any,
        }
    }))
    .expect("the schema is written as one")
}
