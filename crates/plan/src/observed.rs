//! All that the operator saw, as one value: what [`crate::plan`] decides from.

use std::collections::BTreeMap;

use api::TrainerStatus;
use api::condition::Reason;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::render::Pool;

/// What was seen of a workspace's surroundings at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Observed {
    /// When it was seen: the only clock there is.
    pub now: Time,
    pub settings: Settings,
    /// Those that carry the workspace's label, of any revision.
    #[serde(default)]
    pub config_maps: Vec<ConfigMap>,
    /// Those that carry the workspace's label, of any revision.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// Those of these jobs.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// The secrets that the spec names, as far as they were looked at.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretState>,
    /// Why the Job controller could not make a pod: the last warning on the running Job.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Why the kubelet killed pods, in its words, as far as it was asked for.
    #[serde(default)]
    pub killings: BTreeMap<String, String>,
    /// The trainer's own word, where it answered in time.
    #[serde(default)]
    pub trainer: Option<TrainerStatus>,
    /// Whether the adapter that the trainer says it pushed is there.
    #[serde(default)]
    pub registry: RegistryAnswer,
    /// Why an object could not be applied a moment ago.
    #[serde(default)]
    pub obstacle: Option<Obstacle>,
    /// What nodes could be made with.
    #[serde(default)]
    pub cluster: ClusterFacts,
    /// What was made for the workspace's nodes, of any revision.
    #[serde(default)]
    pub pools: Vec<Pool>,
    /// Nodes that the status speaks of or that pods are on, by name; `None` of one that is gone.
    #[serde(default)]
    pub nodes: BTreeMap<String, Option<NodeFacts>>,
    /// The cluster's nodes with GPUs, where it was asked for them.
    #[serde(default)]
    pub gpu_nodes: Option<Vec<NodeFacts>>,
    /// The GPU products that there are.
    #[serde(default = "Catalogue::built_in")]
    pub catalogue: Catalogue,
}

/// What nodes could be made with: the kinds that the cluster serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterFacts {
    /// `NodePool` of `karpenter.sh/v1`.
    pub node_pools: bool,
    /// Group and kind of each kind of node class.
    pub node_classes: Vec<(String, String)>,
    /// `ComputeClass` of `cloud.google.com/v1`.
    pub compute_classes: bool,
    /// `ResourceClaimTemplate` of `resource.k8s.io/v1`.
    pub resource_claims: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeFacts {
    pub name: String,
    pub created: Option<Time>,
    pub labels: BTreeMap<String, String>,
    /// GPUs that pods can have of it.
    pub gpus: u32,
}

/// Why an object cannot be applied: somebody else sets fields of it, though they were put back a moment
/// ago, or the API server refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Obstacle {
    /// `FieldConflict` or `ObjectRefused`.
    pub reason: Reason,
    /// Who sets what field of what object, or what is refused and why.
    pub what: String,
    /// When it is tried again.
    pub until: Time,
}

/// What the operator was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Image of preflight and training pods.
    pub trainer_image: String,
    /// Image of pods that serve.
    #[serde(default)]
    pub server_image: String,
    /// vLLM's image, for servers with that engine.
    #[serde(default)]
    pub vllm_image: String,
    /// The operator's namespace, where it is known: only its pods may tell servers what to hold.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Secrets of every namespace, with which that image is pulled.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// Registries that are spoken to without TLS, as `host:port`.
    #[serde(default)]
    pub plain_http: Vec<String>,
    /// The server that repositories of the Hugging Face hub come from; the hub itself when unset.
    #[serde(default)]
    pub hub_endpoint: Option<String>,
}

/// What a secret has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// Docker's configuration, in the key `.dockerconfigjson`.
    Docker,
    /// A token of the Hugging Face hub, in the key `token`.
    HubToken,
}

/// A secret that a spec names. What it holds never leaves the operator's `observe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretState {
    /// There, and of the form that is needed.
    Usable,
    Missing,
    /// There, and of no use; says what is wrong without saying what it holds.
    Malformed(String),
}

/// What the registry says of the adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryAnswer {
    /// There was nothing to ask for.
    #[default]
    NotAsked,
    Found,
    Missing,
    /// The answer was no answer: what happened.
    Unreachable(String),
}
