//! The one place that writes: by server-side apply, with one field manager, and only what differs.

use std::sync::Arc;

use api::FineTuneWorkspace;
use api::condition::Reason;
use api::workspace::{API_VERSION, KIND};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt as _};
use plan::{Happening, Object, Plan, Removal};
use serde_json::json;
use tracing::info;

use crate::context::{Ctx, MANAGER};

/// What could not be written, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {kind} `{name}`: {source}")]
pub(crate) struct ApplyError {
    action: &'static str,
    kind: &'static str,
    name: String,
    source: Box<kube::Error>,
}

/// Carries out a plan. What is mounted comes before what mounts it, and the event last: a pass that is
/// cut off anywhere is made good by the next one.
pub(crate) async fn apply(
    ctx: &Ctx,
    workspace: &FineTuneWorkspace,
    plan: &Plan,
) -> Result<(), ApplyError> {
    let namespace = workspace.namespace().unwrap_or_default();
    let Plan { delete, apply, status, happening, next: _ } = plan;
    for removal in delete {
        remove(ctx, &namespace, removal).await?;
    }
    for object in apply {
        match object {
            Object::ConfigMap(map) => put(ctx, &namespace, &**map).await?,
            Object::Job(job) => put(ctx, &namespace, &**job).await?,
        }
    }
    if workspace.status.as_ref() != Some(status) {
        put_status(ctx, &namespace, &workspace.name_any(), &json!(status)).await?;
    }
    if let Some(happening) = happening {
        tell(ctx, workspace, happening).await?;
    }
    Ok(())
}

/// Our word on fields that are ours alone: nobody else is to set them.
fn as_manager() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

async fn put<K>(ctx: &Ctx, namespace: &str, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + k8s_openapi::Resource
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    let name = object.name_any();
    api.patch(&name, &as_manager(), &Patch::Apply(object)).await.map_err(|source| ApplyError {
        action: "apply",
        kind: <K as k8s_openapi::Resource>::KIND,
        name: name.clone(),
        source: Box::new(source),
    })?;
    info!(kind = <K as k8s_openapi::Resource>::KIND, object = name, "applied");
    Ok(())
}

async fn put_status(
    ctx: &Ctx,
    namespace: &str,
    name: &str,
    status: &serde_json::Value,
) -> Result<(), ApplyError> {
    let api: Api<FineTuneWorkspace> = Api::namespaced(ctx.client.clone(), namespace);
    let patch = json!({"apiVersion": API_VERSION, "kind": KIND, "status": status});
    let written = api.patch_status(name, &as_manager(), &Patch::Apply(&patch)).await;
    match written {
        // Deleted meanwhile: there is nobody to tell.
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        Err(source) => Err(ApplyError {
            action: "write the status of",
            kind: KIND,
            name: name.to_owned(),
            source: Box::new(source),
        }),
        Ok(_) => Ok(()),
    }
}

async fn remove(ctx: &Ctx, namespace: &str, removal: &Removal) -> Result<(), ApplyError> {
    let Removal { kind, name, uid } = removal;
    let parameters = DeleteParams {
        // Pods go with their Job, and only this very object is meant.
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let client = ctx.client.clone();
    let gone = if *kind == <Job as k8s_openapi::Resource>::KIND {
        Api::<Job>::namespaced(client, namespace).delete(name, &parameters).await.map(|_| ())
    } else {
        Api::<ConfigMap>::namespaced(client, namespace).delete(name, &parameters).await.map(|_| ())
    };
    match gone {
        // Gone already, or another one has its name.
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(source) => {
            Err(ApplyError { action: "delete", kind, name: name.clone(), source: Box::new(source) })
        }
        Ok(()) => {
            info!(kind, object = name, "deleted");
            Ok(())
        }
    }
}

async fn tell(
    ctx: &Ctx,
    workspace: &FineTuneWorkspace,
    happening: &Happening,
) -> Result<(), ApplyError> {
    // The API server takes at most 1 KiB.
    let note: String = happening.note.chars().take(900).collect();
    let event = Event {
        type_: if happening.is_warning { EventType::Warning } else { EventType::Normal },
        reason: happening.reason.to_string(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let about = workspace.object_ref(&());
    match ctx.recorder.publish(&event, &about).await {
        // The namespace is on its way out: no event can be made in it, and nobody will look.
        Err(kube::Error::Api(error)) if error.code == 403 && error.message.contains("terminat") => {
            Ok(())
        }
        Err(source) => Err(ApplyError {
            action: "tell an event of",
            kind: KIND,
            name: workspace.name_any(),
            source: Box::new(source),
        }),
        Ok(()) => Ok(()),
    }
}

/// Says in the status of an object that this version cannot read it.
pub(crate) async fn unreadable(ctx: Arc<Ctx>, object: InvalidObject) -> Result<(), ApplyError> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let status = unreadable_status(&object);
    put_status(&ctx, &namespace, &name, &status).await
}

fn unreadable_status(object: &InvalidObject) -> serde_json::Value {
    tracing::warn!(name = object.metadata.name, error = object.error, "cannot read a workspace");
    let message = format!("this version of the operator cannot read it: {}", object.error);
    let condition = |type_: &str, status: &str| {
        json!({
            "type": type_,
            "status": status,
            "reason": Reason::InvalidSpec.as_str(),
            "message": message,
            "observedGeneration": object.metadata.generation,
            // The same on each pass, so that nothing is written twice.
            "lastTransitionTime": object.metadata.creation_timestamp,
        })
    };
    json!({
        "phase": "Rejected",
        "observedGeneration": object.metadata.generation,
        "conditions": [condition("Ready", "False"), condition("Stalled", "True")],
    })
}
