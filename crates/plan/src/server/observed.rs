//! All that the operator saw of a server, as one value: what [`super::plan_server`] decides from.

use std::collections::BTreeMap;

use api::workspace::{FineTuneWorkspaceStatus, Published};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use api::condition::ServerReason;

use crate::observed::Settings;

/// What was seen of a server's surroundings at one moment.
#[derive(Clone, Debug)]
pub struct ServerObserved {
    /// When it was seen: the only clock there is.
    pub now: Time,
    pub settings: Settings,
    pub deployment: Option<Deployment>,
    pub config_map: Option<ConfigMap>,
    pub service: Option<Service>,
    pub budget: Option<PodDisruptionBudget>,
    pub policy: Option<NetworkPolicy>,
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// Those that carry the server's label.
    pub pods: Vec<Pod>,
    /// The workspaces that the spec names: what each has published, the newest at the end; those that are not
    /// there are left out.
    pub workspaces: BTreeMap<String, Vec<Published>>,
    /// What each running pod says that it holds, by the pod's name; why not, where it does not say.
    pub held: BTreeMap<String, Result<Holding, String>>,
    /// Why an object could not be applied a moment ago.
    pub obstacle: Option<ServerObstacle>,
}

/// Why an object cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerObstacle {
    /// `FieldConflict` or `ObjectRefused`.
    pub reason: ServerReason,
    pub what: String,
    /// When it is tried again.
    pub until: Time,
}

/// What a pod of a server holds, in its own words: the answer at [`super::render::CONTROL_PATH`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Holding {
    /// The number of the declaration that it goes by.
    pub sequence: u64,
    pub adapters: Vec<HeldAdapter>,
}

/// How far an adapter is in one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeldAdapter {
    pub name: String,
    /// The image that was declared.
    pub source: String,
    pub state: HeldState,
    pub reason: Option<String>,
    /// What is served.
    pub digest: Option<String>,
    /// What is to be served, as far as the pod knows.
    pub wanted_digest: Option<String>,
}

/// How far an adapter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldState {
    #[default]
    Loading,
    Serving,
    Refused,
    Unreachable,
}

/// Names of the workspaces that a server takes adapters from.
pub fn workspaces(server: &api::ModelServer) -> impl Iterator<Item = &str> {
    server.spec.adapters.iter().filter_map(|adapter| adapter.workspace.as_deref())
}

/// What a workspace has published, the newest at the end; also where an older operator wrote the status.
pub fn published(status: &FineTuneWorkspaceStatus) -> Vec<Published> {
    let mut all = status.published.clone();
    if let (true, Some(adapter), Some(revision)) =
        (all.is_empty(), &status.adapter, &status.revision)
    {
        let (image, digest) = (adapter.image.clone(), adapter.digest.clone());
        all.push(Published { revision: revision.clone(), image, digest, gate_failed: None });
    }
    all
}
