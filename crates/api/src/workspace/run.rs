//! What happens around the training: scoring, checkpoints, the machine, the output.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Device, GateSpec, Metric, NodesSpec};

/// When held-out examples are scored, and by what.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationSpec {
    /// Optimizer steps between two scorings of the validation examples; 0 is at the end of each epoch.
    /// When unset, about ten times in a run. Needs `data.validation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_steps: Option<u64>,

    /// Scores of generated answers on the test examples: `ExactMatch`, `Accuracy` and `MacroF1` (need
    /// `data.labels`), `RougeL`, `Bleu`, `JsonValidity`. When unset, `Accuracy` and `MacroF1` where there
    /// are labels, else `ExactMatch` and `RougeL`. Needs `data.test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<Metric>>,

    /// Longest generated answer in tokens. From the length of the answers in the data when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: Option<u32>,

    /// Test examples that answers are generated for; 0 is all. 200 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_examples: Option<u32>,

    /// What the tuned model must reach. One that does not is published all the same; a `ModelServer` that
    /// follows the workspace goes on with the newest revision that did. No part of the revision: it may be
    /// changed after the run. None when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
}

/// Stops the run when the validation loss no longer falls.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStoppingSpec {
    /// Scorings without improvement that end the run. 3 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub patience: Option<u64>,

    /// The least fall of the validation loss that counts as improvement. 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_delta: Option<f64>,
}

/// When the state of the run is written down.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointsSpec {
    /// Optimizer steps between two checkpoints; 0 is only when the run is stopped, unless `every` is
    /// set. When unset, about ten times in a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_steps: Option<u64>,

    /// Time after which a checkpoint is written in any case, such as `10m`; also the least time between
    /// two that go to the registry. 10 minutes when unset, 30 for `adapter.full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,

    /// How many are kept, beside the best one. 2 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep: Option<u32>,

    /// Where they outlive a lost pod: `Registry`, as a tag of `output.image`'s repository that is
    /// overwritten and is removed in the end, or `Folder`, which is lost with the pod. `Registry` when
    /// unset. In a cluster only; a local run keeps them in its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<CheckpointPlace>,
}

/// Where checkpoints outlive a lost pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckpointPlace {
    /// A tag of the output's repository.
    #[default]
    Registry,
    /// The run's folder alone.
    Folder,
}

/// The machine that the run may use.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.nodes) || !(has(self.device) && self.device == 'CPU')").message("nodes and device: CPU exclude each other"))]
#[x_kube(validation = Rule::new("!has(self.nodes) || !has(self.gpus) || self.gpus > 0").message("nodes and gpus: 0 exclude each other"))]
#[x_kube(validation = Rule::new("!(has(self.gpus) && self.gpus > 0 && has(self.device) && self.device == 'CPU')").message("gpus and device: CPU exclude each other"))]
#[serde(rename_all = "camelCase")]
pub struct ComputeSpec {
    /// Where the arithmetic runs: `Auto` (a GPU where the machine has one), `CPU` or `CUDA`.
    #[serde(default)]
    pub device: Device,

    /// CPU threads. All that the machine or the container's limit gives when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub cpu: Option<u32>,

    /// Memory that the run may use, such as `4Gi`. All of the machine or of the container's limit when
    /// unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,

    /// GPUs that the training pod asks for. None when unset, one with `nodes`. In a cluster only; preflight never has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 64))]
    pub gpus: Option<u32>,

    /// The GPU nodes that the run gets: chosen by the memory that preflight estimates, asked for once the
    /// run is admitted, given back when it has ended. When unset, the pod takes what nodes there are. In a
    /// cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesSpec>,

    /// The Kueue `LocalQueue` that admits the run. When unset, the run starts at once. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub queue_name: Option<String>,

    /// The priority class of the pods. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub priority_class_name: Option<String>,

    /// Labels that the training pod's node must have. In a cluster only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the training pod tolerates. In a cluster only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}

/// Where the result goes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputSpec {
    /// Repository that the adapter is pushed to, such as `registry.example.com/team/snippets`. Its tag is
    /// the revision when the reference has none. Credentials are those of Docker's configuration, or of
    /// `pushSecret` in a cluster. When unset, the image is written into the run's folder as an OCI layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Secret of type `kubernetes.io/dockerconfigjson` in the workspace's namespace, with which the
    /// adapter is pushed. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub push_secret: Option<String>,

    /// The run's folder: events, checkpoints, adapter, report. `.anneal/NAME` when unset. Local runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub dir: Option<String>,
}
