//! The decision for a `ModelServer`: from the server and what was seen, to the objects that should exist,
//! what its pods are to be told, and the status.
//!
//! What needs new pods is in the Deployment; what does not, the adapters, is in a `ConfigMap` that pods read
//! when they start, and each running pod is told of it by the operator. A number that only grows says which
//! of two declarations is the newer one.

pub mod declared;
pub mod observed;
pub mod render;
mod replicas;
mod status;
mod trouble;

use std::time::Duration;

use api::ModelServer;
use api::condition::{READY, ServerReason};
use api::model_server::{ModelServerStatus, all_faults, base_name};
use api::workspace::API_VERSION;
use api::{Fault, model_server};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde_json::json;

use crate::decide::{Happening, Next, Removal};
use crate::names::{self, MANAGED_BY, ROLE, SERVE, SERVER};
use declared::{Declaration, Wanted, wanted};
use observed::ServerObserved;
pub use render::ServerObject;
use replicas::Replicas;

/// What is to be done, in this order: `delete`, `happening`, `apply`, `tell`, `status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlan {
    /// Objects that should no longer be.
    pub delete: Vec<Removal>,
    /// Objects that should be and are not, or not as they should be. Empty in steady state.
    pub apply: Vec<ServerObject>,
    /// Pods that hold an older declaration than this one.
    pub tell: Vec<Telling>,
    /// The whole status, also where it has not changed.
    pub status: ModelServerStatus,
    /// What to tell as an event: the reason is another than it was.
    pub happening: Option<Happening>,
    pub next: Next,
}

/// A pod that is to be told what to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Telling {
    pub pod: String,
    pub address: String,
    pub declaration: Declaration,
}

/// One server, and what its objects are called and labelled.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    pub(crate) raw: &'a ModelServer,
}

impl Server<'_> {
    pub(crate) fn name(&self) -> String {
        self.raw.metadata.name.clone().unwrap_or_default()
    }

    /// The base model's name in requests.
    pub(crate) fn model_name(&self) -> String {
        base_name(self.raw)
    }

    pub(crate) fn config_map(&self) -> String {
        format!("{}-adapters", self.name())
    }

    /// Labels by which the pods are chosen; they never change.
    pub(crate) fn selector(&self) -> std::collections::BTreeMap<String, String> {
        [(SERVER, self.name().as_str()), (ROLE, SERVE), MANAGED_BY]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// Metadata of an object that goes when the server goes.
    pub(crate) fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: self.raw.metadata.namespace.clone(),
            labels: Some(self.selector()),
            owner_references: Some(vec![OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: model_server::KIND.to_owned(),
                name: self.name(),
                uid: self.raw.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        }
    }
}

/// Decides what should exist for a server, what its pods are told, what the status says, and when to look
/// again.
///
/// # Guarantees
/// The same arguments give the same plan. A plan that was carried out, wholly or in part, and is made anew
/// from what then is seen, goes on from there. A name whose adapter cannot be told keeps the one it had.
pub fn plan_server(raw: &ModelServer, observed: &ServerObserved) -> ServerPlan {
    let server = Server { raw };
    let faults = faults(raw);
    if !faults.is_empty() {
        // What runs goes on as it is.
        let status = status::rejected(&server, &faults, observed);
        return concluded(raw, status, Next::OnChange);
    }
    let wanted = wanted(raw, observed);
    let declaration = Declaration::next(&wanted, observed);
    let replicas = Replicas::new(&server, &declaration, observed);
    let (status, reason) = status::status(&server, &wanted, &replicas, observed);
    let mut plan = concluded(raw, status, next(reason, &wanted, &replicas, observed));
    if observed.obstacle.is_none() {
        plan.apply = render::render(&server, &declaration, observed);
        plan.delete = superseded(raw, observed);
    }
    plan.tell = replicas.tellings(&declaration);
    if !plan.tell.is_empty() {
        plan.next = SOON;
    }
    plan
}

/// Every fault of the spec, and what only a local server has.
fn faults(raw: &ModelServer) -> Vec<Fault> {
    let mut faults = all_faults(raw);
    let mut local = |field: String| {
        let hint = "use `image`: push the folder with `anneal push`, or any tool that makes images";
        faults.push(Fault {
            field: Some(field),
            message: "a path has no meaning in a cluster".to_owned(),
            hint: Some(hint.to_owned()),
            ..Fault::default()
        });
    };
    if raw.spec.base_model.path.is_some() {
        local("spec.baseModel.path".to_owned());
    }
    for (index, adapter) in raw.spec.adapters.iter().enumerate() {
        if adapter.path.is_some() {
            local(format!("spec.adapters[{index}].path"));
        }
    }
    faults
}

/// An autoscaler that is not asked for any more.
fn superseded(raw: &ModelServer, observed: &ServerObserved) -> Vec<Removal> {
    let old = observed.autoscaler.iter().filter(|_| raw.spec.autoscaling.is_none());
    let old = old.map(Metadata::metadata).filter(|old| old.deletion_timestamp.is_none());
    old.map(|old| crate::decide::removal(HorizontalPodAutoscaler::KIND, old)).collect()
}

const SOON: Next = Next::After(Duration::from_secs(1));

/// When to look again: what pods hold is not in the cluster, and is asked for.
fn next(
    reason: ServerReason,
    wanted: &[Wanted],
    replicas: &Replicas<'_>,
    observed: &ServerObserved,
) -> Next {
    if let Some(obstacle) = &observed.obstacle {
        let left = obstacle.until.0.duration_since(observed.now.0);
        return Next::After(left.try_into().unwrap_or_default());
    }
    match reason {
        ServerReason::LoadingAdapters | ServerReason::ReplicaSilent => SOON,
        _ if replicas.is_loading() => SOON,
        // A tag may move at any time, and the pods follow it by themselves.
        _ if wanted.iter().any(Wanted::follows_a_tag) => Next::After(Duration::from_secs(5)),
        _ => Next::After(Duration::from_secs(30)),
    }
}

fn concluded(raw: &ModelServer, status: ModelServerStatus, next: Next) -> ServerPlan {
    let happening = happening(raw, &status);
    let (delete, apply, tell) = (Vec::new(), Vec::new(), Vec::new());
    ServerPlan { delete, apply, tell, status, happening, next }
}

/// An event, unless the last pass told it already.
fn happening(raw: &ModelServer, new: &ModelServerStatus) -> Option<Happening> {
    let is_ready = |one: &&Condition| one.type_ == READY;
    let old = raw.status.as_ref().and_then(|old| old.conditions.iter().find(is_ready));
    let new = new.conditions.iter().find(is_ready)?;
    let reason = ServerReason::ALL.iter().find(|reason| reason.as_str() == new.reason)?;
    let is_warning = match reason {
        ServerReason::Serving
        | ServerReason::Starting
        | ServerReason::LoadingAdapters
        | ServerReason::AwaitingAdapter => false,
        ServerReason::InvalidSpec
        | ServerReason::Unschedulable
        | ServerReason::PodRefused
        | ServerReason::ImagePullFailed
        | ServerReason::ContainerNotStarting
        | ServerReason::AdapterMissing
        | ServerReason::AdapterRefused
        | ServerReason::RegistryUnreachable
        | ServerReason::ReplicaSilent
        | ServerReason::FieldConflict
        | ServerReason::ObjectRefused => true,
    };
    let is_told = old.is_some_and(|old| old.reason == new.reason);
    let key = event_key(raw, &new.reason);
    let note = new.message.clone();
    (!is_told).then_some(Happening { is_warning, reason: reason.as_str(), note, key })
}

/// Digits by which an event is known that tells of the step from the status as it is to a reason.
pub(crate) fn event_key(raw: &ModelServer, reason: &str) -> String {
    let old = raw.status.clone().unwrap_or_default();
    let ready = old.conditions.iter().find(|one| one.type_ == READY);
    let since = ready.map(|ready| (&ready.reason, &ready.last_transition_time));
    names::hex(
        &json!([raw.metadata.uid, old.observed_generation, since, old.adapters, reason])
            .to_string(),
    )
}

/// An event of somebody else's field that was put back.
pub fn put_back(raw: &ModelServer, what: &str) -> Happening {
    Happening::of_putting_back(what, event_key(raw, &format!("put back: {what}")))
}

/// The status of a server that this version cannot read: a later version's, perhaps.
pub fn unreadable(raw: &ModelServer, error: &str, now: &Time) -> ModelServerStatus {
    let message = format!("this version of the operator cannot read it: {error}");
    status::unreadable(&Server { raw }, message, now)
}
