//! The `ConfigMap` that tells preflight and trainer what to do: the workspace, without what is only the
//! cluster's business.

use std::collections::BTreeMap;

use api::FineTuneWorkspace;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Context, Object};

/// The key, and the file's name in the pod.
pub(crate) const FILE: &str = "workspace.yaml";

/// The `ConfigMap`, unless there is one: it never changes, so that a running attempt and its successors
/// read the same.
pub(super) fn missing(context: &Context<'_>) -> Option<Object> {
    let name = context.run.config_map();
    let exists = context
        .observed
        .config_maps
        .iter()
        .any(|found| found.metadata.name.as_deref() == Some(&name));
    (!exists).then(|| Object::ConfigMap(Box::new(config_map(context, name))))
}

fn config_map(context: &Context<'_>, name: String) -> ConfigMap {
    let text = api::yaml::to_text(&for_trainer(context));
    ConfigMap {
        metadata: context.run.metadata(name, None),
        data: Some(BTreeMap::from([(FILE.to_owned(), text)])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// The workspace with the tag that the adapter gets, and without names of secrets and nodes.
fn for_trainer(context: &Context<'_>) -> FineTuneWorkspace {
    let raw = context.run.raw;
    let mut spec = raw.spec.clone();
    spec.base_model.pull_secret = None;
    if let Some(hub) = &mut spec.base_model.hugging_face {
        hub.token_secret = None;
    }
    spec.data.pull_secret = None;
    if let Some(compute) = &mut spec.compute {
        // What it asks for is all that the trainer has to know of its nodes.
        if compute.nodes.take().is_some() {
            compute.gpus = Some(context.workspace.compute.gpus);
        }
        compute.queue_name = None;
        compute.priority_class_name = None;
        compute.node_selector.clear();
        compute.tolerations.clear();
    }
    if let Some(output) = &mut spec.output {
        output.push_secret = None;
    }
    if let (Some(output), Some(image)) = (&mut spec.output, &context.workspace.output.image) {
        let mut image = image.clone();
        image.tag.get_or_insert_with(|| context.run.revision.clone());
        output.image = Some(image.to_string());
    }
    spec.limits = None;
    spec.suspend = false;
    let metadata = ObjectMeta {
        name: raw.metadata.name.clone(),
        namespace: raw.metadata.namespace.clone(),
        ..ObjectMeta::default()
    };
    FineTuneWorkspace { metadata, spec, status: None }
}
