//! `ModelServer`: a base model, the adapters that are served with it, and by what. `anneal serve -f`
//! reads it on one machine; fields that only a cluster has say so.
//!
//! The doc comments here are the text of `kubectl explain`. Rules over several fields are CEL at the
//! types and code in [`faults`], which says the same with a field's name.

#![expect(unreachable_pub, reason = "KubeSchema derives a copy of each struct that nobody sees")]

mod rules;
mod status;
mod table;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::workspace::{ModelSource, Precision};

pub use rules::{all_faults, base_name, faults};
pub use status::{ModelServerStatus, ServedAdapterStatus};
pub(crate) use table::RULES;

/// The kind's name.
pub const KIND: &str = "ModelServer";

/// What is served, and by what.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "anneal.dev",
    version = "v1alpha1",
    kind = "ModelServer",
    plural = "modelservers",
    shortname = "ms",
    category = "anneal",
    namespaced,
    status = "ModelServerStatus",
    derive = "PartialEq",
    validation = Rule::new("oldSelf.hasValue() || self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").optional_old_self(true).message("metadata.name must be a DNS label of at most 50 characters that begins with a letter: pods and Service are named after it"),
    validation = Rule::new("has(self.spec.modelName) || !has(self.spec.adapters) || self.spec.adapters.all(one, one.name != self.metadata.name)").message("an adapter has the name of the base model, which is metadata.name where modelName is unset"),
    doc = "Serves a base model and many adapters over OpenAI's HTTP API; adapters are replaced without a restart.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Replicas that answer"
    ),
    printcolumn(
        name = "Adapters",
        type_ = "string",
        json_path = ".status.summary",
        description = "Adapters that all replicas hold, of all"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    )
)]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))").message("replicas and autoscaling exclude each other"))]
#[x_kube(validation = Rule::new("!has(self.modelName) || !has(self.adapters) || self.adapters.all(one, one.name != self.modelName)").message("an adapter has the name of the base model, which is modelName"))]
#[x_kube(validation = Rule::new("self.engine != 'VLLM' || !has(self.weights)").message("weights has no meaning with `engine: VLLM`"))]
#[x_kube(validation = Rule::new("self.engine != 'VLLM' || !has(self.limits) || !has(self.limits.cacheMemory) && !has(self.limits.adapterMemory)").message("limits.cacheMemory and limits.adapterMemory have no meaning with `engine: VLLM`"))]
#[x_kube(validation = Rule::new("self.engine != 'VLLM' || !has(self.limits) || !has(self.limits.maxRank) || self.limits.maxRank <= 512").message("limits.maxRank is above 512, the highest rank of `engine: VLLM`"))]
#[serde(rename_all = "camelCase")]
pub struct ModelServerSpec {
    /// The model that all adapters were trained on: a folder or file, an OCI image, or a Hugging Face
    /// repository.
    pub base_model: ModelSource,

    /// The base model's name in requests. The object's name when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model_name: Option<String>,

    /// What can be asked for beside the base model. May be changed while the server runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub adapters: Vec<ServedAdapter>,

    /// What answers: `Anneal`, or `VLLM` in a cluster.
    #[serde(default)]
    pub engine: Engine,

    /// Number format of weights and activations: `FP32` or `BF16`. `FP32` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,

    /// Format of the linear layers' matrices where it differs from `precision`: `Int8`, a quarter of the
    /// memory of `FP32`, each row with a factor of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,

    /// Pods that answer. 1 when unset. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub replicas: Option<u32>,

    /// Lets the number of pods follow the load. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,

    /// What a server may use and lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ServingLimits>,

    /// The machine that a pod may use. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<ServerCompute>,

    /// Secret whose values are the API keys that are let in, one or more on lines of their own; everybody is
    /// when unset. It is read when a pod starts. In a cluster only; a local server reads `--api-keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub api_keys_secret: Option<String>,
}

/// An adapter and its name in requests. Exactly one of `workspace`, `image` and `path`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.workspace), has(self.image), has(self.path)].filter(x, x).size() == 1").message("set exactly one of workspace, image, path"))]
#[x_kube(validation = Rule::new("!has(self.revision) || has(self.workspace)").message("revision needs workspace"))]
#[serde(rename_all = "camelCase")]
pub struct ServedAdapter {
    /// The model's name in requests.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// A `FineTuneWorkspace` of this namespace: its newest published revision that passed its
    /// `evaluation.gate` is served, within seconds of its end. On one machine the result of `anneal run`, in
    /// `.anneal/NAME`, whatever its gate says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub workspace: Option<String>,

    /// Holds the workspace's adapter at this revision, which is one of its `status.published`, also one that
    /// failed its gate. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub revision: Option<String>,

    /// An adapter's image. A tag is followed: what it is moved to is served within seconds. A digest
    /// (`…@sha256:…`) pins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// An adapter's folder, or a run's. Local servers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub path: Option<String>,

    /// Secret of type `kubernetes.io/dockerconfigjson` in this namespace, with which the adapter is pulled. It
    /// is mounted into the pods: one that no adapter named before restarts them, one after the other. In a
    /// cluster only; a local server reads Docker's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pull_secret: Option<String>,
}

/// What answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Engine {
    /// Anneal's own server.
    #[default]
    Anneal,
    /// vLLM, behind a server of ours that fetches and verifies adapters and has vLLM load them. An answer
    /// names the revision that made it: `reviews@3840f456abcd`. In a cluster only.
    VLLM,
}

/// Format of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Weights {
    Int8,
}

/// Lets the number of pods follow the load.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas").message("minReplicas is above maxReplicas"))]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingSpec {
    /// Fewest pods. 1 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<u32>,

    /// Most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,

    /// Requests that wait at a pod, on average, beyond which there are more pods. 4 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub waiting_requests: Option<u32>,
}

/// What a server may use and lets in.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServingLimits {
    /// Most tokens of prompt and answer together. What the model takes when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub context: Option<u32>,

    /// Answers that are made at once. 32 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub sequences: Option<u32>,

    /// Answers that may wait beside them; more are refused with status 429. 256 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub waiting: Option<u32>,

    /// Memory for keys and values, taken at the start, such as `2Gi`. `1Gi` when unset. vLLM takes what the GPU
    /// has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub cache_memory: Option<String>,

    /// Memory for adapters, such as `2Gi`; those used longest ago are read again when they are asked for.
    /// `1Gi` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub adapter_memory: Option<String>,

    /// Highest rank of an adapter. 64 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_rank: Option<u32>,
}

/// The machine that a pod may use.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerCompute {
    /// CPU threads. All that the node gives when unset, of which half a one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub cpu: Option<u32>,

    /// Memory of a pod, such as `4Gi`: asked for, and the most that it gets. Without it 1 GiB beside what
    /// `limits` reserves is asked for, and there is no most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub memory: Option<String>,

    /// GPUs of a pod. None when unset; one with `engine: VLLM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 64))]
    pub gpus: Option<u32>,

    /// The priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Labels that a pod's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}
