//! The objects that should exist for a server, one function and one file for each kind.

mod anneal;
mod around;
mod deployment;
mod quantity;
mod vllm;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::Server;
use super::declared::Declaration;
use super::observed::ServerObserved;
use crate::names::{self, ASKED};
use crate::render::covers;

/// Port of the API.
pub const PORT: i32 = 8000;
/// Port at which the operator tells a pod what to hold, and asks what it holds.
pub const CONTROL_PORT: i32 = 8081;
/// Path at that port: `GET` answers [`super::observed::Holding`], `PUT` takes a [`Declaration`].
pub const CONTROL_PATH: &str = "/anneal/adapters";
/// Path at that port that answers whether vLLM is well.
const ENGINE_PATH: &str = "/anneal/engine";
/// The name of vLLM's container.
pub(crate) const VLLM: &str = "vllm";
/// Folder in the pod with a folder of Docker's configuration for each pull secret.
pub(crate) const PULL: &str = "/var/run/secrets/anneal.dev/pull";

/// An object to be applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ServerObject {
    ConfigMap(Box<ConfigMap>),
    NetworkPolicy(Box<NetworkPolicy>),
    Deployment(Box<Deployment>),
    Service(Box<Service>),
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    HorizontalPodAutoscaler(Box<HorizontalPodAutoscaler>),
}

/// The objects that should exist and do not, or differ from what they should be, in the order in which they
/// are applied: what a pod mounts and what guards it comes before the pod.
pub(super) fn render(
    server: &Server<'_>,
    declaration: &Declaration,
    observed: &ServerObserved,
) -> Vec<ServerObject> {
    let mut objects = vec![
        ServerObject::ConfigMap(Box::new(around::config_map(server, declaration))),
        ServerObject::NetworkPolicy(Box::new(around::network_policy(server, observed))),
        ServerObject::Deployment(Box::new(deployment::deployment(server, observed))),
        ServerObject::Service(Box::new(around::service(server))),
        ServerObject::PodDisruptionBudget(Box::new(around::budget(server))),
    ];
    let scaling = around::autoscaler(server);
    objects.extend(scaling.map(Box::new).map(ServerObject::HorizontalPodAutoscaler));
    objects.iter_mut().for_each(ask);
    objects.retain(|object| !is_there(object, observed));
    objects
}

/// Notes what is asked for: a field that is not, any more, is a difference too.
fn ask(object: &mut ServerObject) {
    let value = serde_json::to_value(&*object).unwrap_or_default();
    // The number of replicas is the autoscaler's, and is found as it left it.
    let hash = names::hex(&match object {
        ServerObject::Deployment(_) => {
            let mut value = value;
            value["spec"]["replicas"] = serde_json::Value::Null;
            value.to_string()
        }
        ServerObject::ConfigMap(_)
        | ServerObject::NetworkPolicy(_)
        | ServerObject::Service(_)
        | ServerObject::PodDisruptionBudget(_)
        | ServerObject::HorizontalPodAutoscaler(_) => value.to_string(),
    });
    let annotations = metadata(object).annotations.get_or_insert_default();
    annotations.insert(ASKED.to_owned(), hash);
}

fn metadata(object: &mut ServerObject) -> &mut ObjectMeta {
    match object {
        ServerObject::ConfigMap(object) => &mut object.metadata,
        ServerObject::NetworkPolicy(object) => &mut object.metadata,
        ServerObject::Deployment(object) => &mut object.metadata,
        ServerObject::Service(object) => &mut object.metadata,
        ServerObject::PodDisruptionBudget(object) => &mut object.metadata,
        ServerObject::HorizontalPodAutoscaler(object) => &mut object.metadata,
    }
}

/// Whether the object is in the cluster, with every field that we would set; or its predecessor of the same
/// name, which is on its way out.
fn is_there(object: &ServerObject, observed: &ServerObserved) -> bool {
    match object {
        ServerObject::ConfigMap(wanted) => same(observed.config_map.as_ref(), wanted),
        ServerObject::NetworkPolicy(wanted) => same(observed.policy.as_ref(), wanted),
        ServerObject::Deployment(wanted) => same(observed.deployment.as_ref(), wanted),
        ServerObject::Service(wanted) => same(observed.service.as_ref(), wanted),
        ServerObject::PodDisruptionBudget(wanted) => same(observed.budget.as_ref(), wanted),
        ServerObject::HorizontalPodAutoscaler(wanted) => same(observed.autoscaler.as_ref(), wanted),
    }
}

fn same<K>(found: Option<&K>, wanted: &K) -> bool
where
    K: Serialize + k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    found
        .is_some_and(|found| found.metadata().deletion_timestamp.is_some() || covers(found, wanted))
}
