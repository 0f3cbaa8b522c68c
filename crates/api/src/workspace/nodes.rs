//! The GPU nodes that a run gets, and what the status says of them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The GPU nodes that a run gets. The smallest GPU that holds the run is chosen once preflight has
/// measured it; nodes are asked for once the run is admitted, and given back when it has ended.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodesSpec {
    /// What makes the nodes: `Karpenter` (also the node auto-provisioning of AKS), `GKE` (a custom
    /// `ComputeClass`), `Existing` (nothing is made: nodes are picked by the labels of GPU feature
    /// discovery) or `DRA` (a `ResourceClaimTemplate`). When unset, the first of Karpenter, GKE and
    /// Existing that the cluster has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioner: Option<Provisioner>,

    /// The cloud's own settings of a node, for Karpenter. When unset, the object `default` of the first
    /// kind of node class that the cluster has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_ref: Option<NodeClassRef>,

    /// How the nodes are paid for: `OnDemand`, `Spot`, or `SpotThenOnDemand`, which takes what is there,
    /// Spot first. `OnDemand` when unset. A Spot node that is taken away does not count as a failure: the
    /// run goes on from its checkpoint on the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_type: Option<CapacityType>,

    /// Interruptions after which a run of `SpotThenOnDemand` asks for `OnDemand` alone. 3 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_interruptions: Option<u32>,

    /// GPU products that may be used, by their names in the catalogue, such as `NVIDIA L4`. All when
    /// unset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<String>,

    /// The least memory of a GPU, such as `40Gi`. What preflight estimates when unset, or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<String>,

    /// Zones that the nodes may be in. All when unset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,

    /// How long a node without a pod stays while the run has not ended, such as between two attempts.
    /// `2m` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_idle: Option<String>,

    /// Labels that the nodes get, such as a cost centre.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What makes nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provisioner {
    /// A `NodePool` of Karpenter.
    Karpenter,
    /// A custom `ComputeClass` of GKE.
    #[serde(rename = "GKE")]
    Gke,
    /// Nothing is made.
    Existing,
    /// A `ResourceClaimTemplate`.
    #[serde(rename = "DRA")]
    Dra,
}

/// How nodes are paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CapacityType {
    /// Kept until given back.
    #[default]
    OnDemand,
    /// May be taken away at any moment.
    Spot,
    /// Spot first, and on demand where there is none, or after too many interruptions.
    SpotThenOnDemand,
}

/// An object with a cloud's own settings of a node.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClassRef {
    /// The kind's group, such as `karpenter.k8s.aws`. When unset, that of the node class that the cluster
    /// has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The kind, such as `EC2NodeClass`. When unset, that of the node class that the cluster has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The object's name.
    pub name: String,
}

/// The GPU nodes of a run, as they were chosen, and what they were used for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityStatus {
    /// What makes the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioner: Option<Provisioner>,
    /// The object that was made for it, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The smallest GPU product that holds the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// GPUs of the run.
    #[serde(default)]
    pub gpus: u32,
    /// Why this product, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Other products that hold the run, the next larger one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runners_up: Vec<String>,
    /// How the next node is paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_type: Option<CapacityType>,
    /// Nodes that were taken away while the run used them.
    #[serde(default)]
    pub interruptions: u32,
    /// What each pod of the training had of a node, the last one at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<NodeUse>,
    /// Seconds that the parts of the run took, as far as they are over.
    #[serde(default)]
    pub seconds: PhaseSeconds,
    /// GPU-seconds of pods that are over.
    #[serde(default)]
    pub gpu_seconds: GpuSeconds,
}

/// What a pod of the training had of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUse {
    /// The pod.
    pub pod: String,
    /// The node, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node's instance type, where the node tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// GPUs of the node, where it was made for this run; else those of the pod.
    #[serde(default)]
    pub gpus: u32,
    /// When the pod was made: GPUs are asked for from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Time>,
    /// When the node was made, where it was made for this run: it is held from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Time>,
    /// When the pod got its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Time>,
    /// When the container started: the GPUs are used from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When the container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// When the node was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Time>,
    /// Seconds of the container's time that went into pushing the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publishing: Option<u64>,
    /// The node was taken away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

/// Seconds that the parts of a run took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseSeconds {
    /// From the Job to its admission.
    pub queued: u64,
    /// From a pod to its node.
    pub provisioning: u64,
    /// From the node to the container's start.
    pub pulling: u64,
    /// Of the container, without the push.
    pub training: u64,
    /// Of the push.
    pub publishing: u64,
}

/// Seconds times GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuSeconds {
    /// From each pod to its end.
    pub asked: u64,
    /// From each node's beginning to its end.
    pub held: u64,
    /// While a container ran.
    pub used: u64,
}
