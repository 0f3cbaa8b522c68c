//! From what was written to what cannot be wrong: [`validate`] tells all faults at once, each with its
//! field path.
//!
//! Types and ranges of single fields are the schema's ([`crate::schema`]); this module adds the rules that
//! need more than one field, and parses names. Rules that need the model or the data are `plan`'s.

mod cluster;
mod data;
mod gate;
mod nodes;
mod training;

use std::path::PathBuf;

use crate::fault::Fault;
use crate::names::{
    HubRepository, ImageReference, NameError, WorkspaceName, parse_bytes, parse_duration,
};
use crate::run_spec::{Device, EarlyStopping, Method};
use crate::schema;
use crate::valid::{Checkpoints, Compute, ModelSource, Output, Workspace};
use crate::workspace::{self, FineTuneWorkspace, FineTuneWorkspaceSpec};

/// Checks a workspace as a whole.
pub fn validate(raw: &FineTuneWorkspace) -> Result<Workspace, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.0.extend(schema_faults(&raw.spec));
    let spec = &raw.spec;
    let name = faults.name(
        "metadata.name",
        WorkspaceName::parse(raw.metadata.name.as_deref().unwrap_or_default()),
    );
    let base_model = model_source(&spec.base_model, &mut faults);
    let data = data::data(&spec.data, &mut faults);
    method(spec, &mut faults);
    let adapter = training::adapter(spec.adapter.as_ref(), &mut faults);
    let quantization = training::quantization(spec, &mut faults);
    let hyperparameters = training::hyperparameters(spec.hyperparameters.as_ref(), &mut faults);
    let evaluation = data::evaluation(spec, &mut faults);
    let early_stopping = early_stopping(spec, &mut faults);
    let checkpoints = checkpoints(spec.checkpoints.as_ref(), &mut faults);
    let compute = compute(spec.compute.as_ref(), &mut faults);
    let output = output(spec.output.as_ref(), &mut faults);
    let limits = cluster::limits(spec.limits.as_ref(), &mut faults);
    let secrets = cluster::secrets(spec, &mut faults);
    match (name, base_model, data, adapter, output) {
        (Some(name), Some(base_model), Some(data), Some(adapter), Some(output))
            if faults.0.is_empty() =>
        {
            Ok(Workspace {
                name,
                namespace: raw.metadata.namespace.clone(),
                base_model,
                data,
                method: Method::Sft,
                adapter,
                quantization,
                hyperparameters,
                evaluation,
                early_stopping,
                checkpoints,
                compute,
                output,
                limits,
                secrets,
                suspend: spec.suspend,
            })
        }
        _ => Err(faults.0),
    }
}

/// Faults of single fields, for a workspace that no schema has seen yet.
fn schema_faults(spec: &FineTuneWorkspaceSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut value = serde_json::to_value(spec).expect("the spec holds nothing that JSON cannot");
    schema::check(&mut value, schema::spec(), "spec", &mut faults);
    faults
}

/// The faults so far.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        let (message, hint) = (message.into(), Some(hint.into()));
        self.0.push(Fault { field: Some(field.to_owned()), message, hint, ..Fault::default() });
    }

    /// The parsed name, or a fault.
    fn name<T>(&mut self, field: &str, parsed: Result<T, NameError>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.message, error.hint)).ok()
    }

    /// A fault unless exactly one of the named choices is set.
    fn one_of(&mut self, field: &str, choices: &[(&str, bool)]) {
        let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let set: Vec<&str> =
            choices.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        let hint = format!("set exactly one of {names}");
        match set.len() {
            0 => self.add(field, "nothing is chosen", hint),
            1 => {}
            _ => self.add(field, format!("{} exclude each other", set.join(" and ")), hint),
        }
    }

    /// A path that is not empty.
    fn path(&mut self, field: &str, text: &str) -> Option<PathBuf> {
        if text.trim().is_empty() {
            self.add(field, "the path is empty", "name a file or a folder");
            return None;
        }
        Some(PathBuf::from(text))
    }
}

fn model_source(raw: &workspace::ModelSource, faults: &mut Faults) -> Option<ModelSource> {
    let field = "spec.baseModel";
    faults.one_of(
        field,
        &[
            ("path", raw.path.is_some()),
            ("image", raw.image.is_some()),
            ("huggingFace", raw.hugging_face.is_some()),
        ],
    );
    if let Some(path) = &raw.path {
        return faults.path("spec.baseModel.path", path).map(ModelSource::Path);
    }
    if let Some(image) = &raw.image {
        let image = faults.name("spec.baseModel.image", ImageReference::parse(image));
        return image.map(ModelSource::Image);
    }
    let hub = raw.hugging_face.as_ref()?;
    let revision = hub.revision.as_deref().unwrap_or("main");
    let hub =
        faults.name("spec.baseModel.huggingFace.repo", HubRepository::parse(&hub.repo, revision));
    hub.map(ModelSource::HuggingFace)
}

fn method(spec: &FineTuneWorkspaceSpec, faults: &mut Faults) {
    if let Some(method) = &spec.method {
        faults.one_of("spec.method", &[("sft", method.sft.is_some())]);
    }
}

fn early_stopping(spec: &FineTuneWorkspaceSpec, faults: &mut Faults) -> Option<EarlyStopping> {
    let raw = spec.early_stopping.as_ref()?;
    if spec.data.validation.is_none() {
        faults.add(
            "spec.earlyStopping",
            "there is no validation loss to watch",
            "add `data.validation`, such as `{fraction: 0.1}`, or remove earlyStopping",
        );
    }
    Some(EarlyStopping {
        patience: raw.patience.unwrap_or(3),
        min_delta: raw.min_delta.unwrap_or(0.0),
    })
}

fn checkpoints(raw: Option<&workspace::CheckpointsSpec>, faults: &mut Faults) -> Checkpoints {
    let raw = raw.cloned().unwrap_or_default();
    let every = raw.every.as_deref();
    Checkpoints {
        every_steps: raw.every_steps,
        every: every.and_then(|text| faults.name("spec.checkpoints.every", parse_duration(text))),
        keep: raw.keep,
        to: raw.to.unwrap_or_default(),
    }
}

fn compute(raw: Option<&workspace::ComputeSpec>, faults: &mut Faults) -> Compute {
    let raw = raw.cloned().unwrap_or_default();
    let memory = raw.memory.as_deref();
    let memory = memory.and_then(|text| faults.name("spec.compute.memory", parse_bytes(text)));
    let gpus = raw.gpus.unwrap_or(u32::from(raw.nodes.is_some()));
    let nodes = nodes::nodes(&raw, faults);
    if raw.gpus.unwrap_or(0) > 0 && raw.device == Device::Cpu {
        let hint = "remove one of them";
        faults.add("spec.compute.gpus", "gpus and device: CPU exclude each other", hint);
    }
    Compute {
        device: raw.device,
        threads: raw.cpu,
        memory,
        gpus,
        nodes,
        queue_name: raw.queue_name,
        priority_class_name: raw.priority_class_name,
        node_selector: raw.node_selector,
        tolerations: raw.tolerations,
    }
}

fn output(raw: Option<&workspace::OutputSpec>, faults: &mut Faults) -> Option<Output> {
    let raw = raw.cloned().unwrap_or_default();
    let field = "spec.output.image";
    let image = match raw.image.as_deref().map(ImageReference::parse) {
        None => None,
        Some(parsed) => Some(faults.name(field, parsed)?),
    };
    if image.as_ref().is_some_and(|image| image.digest.is_some()) {
        faults.add(
            field,
            "a digest cannot be pushed to",
            "leave the digest out: it is known only after the run",
        );
    }
    Some(Output { image, dir: raw.dir.map(PathBuf::from) })
}
