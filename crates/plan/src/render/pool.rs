//! What nodes are made with, and how the pod gets onto them: one file for each provisioner.

use std::collections::BTreeMap;

use api::workspace::Provisioner;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, dra, existing, gke, karpenter};
use crate::nodes::Placement;
use crate::phase::Phase;
use crate::seen::{JobState, state};

/// An object of a kind that only some clusters serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: Value,
}

/// Kinds of the whole cluster: they do not go with a workspace.
const OF_CLUSTER: [&str; 2] = [karpenter::KIND, gke::KIND];

/// Whether a kind is one of the whole cluster.
pub(crate) fn of_cluster(kind: &str) -> bool {
    OF_CLUSTER.contains(&kind)
}

/// What an object is deleted by; none of a kind that is not ours.
pub fn kind(pool: &Pool) -> Option<&'static str> {
    [karpenter::KIND, gke::KIND, dra::KIND].into_iter().find(|kind| *kind == pool.kind)
}

/// What should become of the nodes of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// They are asked for.
    Make,
    /// Those that there are stay, and none are asked for.
    Keep,
    /// They are given back.
    Gone,
}

/// Nodes are there while the run is admitted, and no longer. Between two attempts those stay that are
/// there, unless a queue has the quota back; and until the status tells how the run ended: the pod that
/// says so is on one of them.
pub(crate) fn wish(context: &Context<'_>, phase: &Phase) -> Wish {
    let queued = context.workspace.compute.queue_name.is_some();
    let last = context.seen.trainings.last().map(|job| state(job));
    match phase {
        Phase::Provisioning { .. } | Phase::Training | Phase::Evaluating | Phase::Ending { .. } => {
            Wish::Make
        }
        Phase::Publishing { .. } if last == Some(JobState::Active) => Wish::Make,
        Phase::Publishing { .. } | Phase::Succeeded { .. } | Phase::Failed { .. } => Wish::Keep,
        Phase::Retrying { .. } if !queued => Wish::Keep,
        Phase::Queued if last.is_some() && !queued => Wish::Keep,
        Phase::Retrying { .. }
        | Phase::Queued
        | Phase::Rejected { .. }
        | Phase::NoNodes { .. }
        | Phase::Suspended
        | Phase::Preflight { .. } => Wish::Gone,
    }
}

/// What is to be made for the nodes at this moment.
pub(super) fn pool(context: &Context<'_>, phase: &Phase) -> Option<Pool> {
    let placement = context.placement?;
    if wish(context, phase) != Wish::Make {
        return None;
    }
    let name = context.run.pool();
    match placement.provisioner {
        Provisioner::Karpenter => Some(karpenter::node_pool(context.run, placement, name)),
        Provisioner::Gke => Some(gke::compute_class(context.run, placement, name)),
        Provisioner::Dra => Some(dra::claim_template(context.run, placement, name)),
        Provisioner::Existing => None,
    }
}

/// Puts the training pod onto the nodes.
pub(super) fn put(pod: &mut PodSpec, placement: &Placement<'_>, name: &str) {
    match placement.provisioner {
        Provisioner::Karpenter => karpenter::put(pod, name),
        Provisioner::Gke => gke::put(pod, name),
        Provisioner::Existing => existing::put(pod, placement),
        Provisioner::Dra => dra::put(pod, name),
    }
}

/// Annotations of the training pod.
pub(super) fn annotations(placement: &Placement<'_>) -> Option<BTreeMap<String, String>> {
    // The autoscaler leaves the node alone while the pod runs; Karpenter's pool says so itself.
    let is_gke = placement.provisioner == Provisioner::Gke;
    let annotation = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    is_gke.then(|| BTreeMap::from([(annotation.to_owned(), "false".to_owned())]))
}

/// Adds a label that the node must have.
pub(super) fn select(pod: &mut PodSpec, key: &str, value: &str) {
    pod.node_selector.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

/// Adds a toleration of a taint that keeps other pods away; without a value, of any.
pub(super) fn tolerate(pod: &mut PodSpec, key: &str, value: Option<&str>) {
    let operator = if value.is_some() { "Equal" } else { "Exists" };
    pod.tolerations.get_or_insert_default().push(Toleration {
        key: Some(key.to_owned()),
        operator: Some(operator.to_owned()),
        value: value.map(str::to_owned),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    });
}

/// The taint that clouds and GPU operators put on nodes with GPUs.
pub(super) const GPU: &str = "nvidia.com/gpu";
