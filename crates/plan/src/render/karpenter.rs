//! Karpenter's `NodePool`: one for each revision of a workspace, and no larger than the run.

use api::workspace::CapacityType;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::pool::{GPU, Pool, select, tolerate};
use crate::names::{POOL, Run};
use crate::nodes::Placement;

pub(super) const KIND: &str = "NodePool";

/// Any of these instance types, Spot before on demand where both are allowed: the provider takes the
/// cheapest that it gets. The limit is one node's GPUs, so that a second node can never be.
pub(super) fn node_pool(run: &Run<'_>, placement: &Placement<'_>, name: String) -> Pool {
    let Placement { nodes, class, types, gpus_of_node, .. } = placement;
    let mut labels = nodes.labels.clone();
    labels.insert(POOL.to_owned(), name.clone());
    let capacity_types: &[&str] = match placement.capacity_type {
        CapacityType::OnDemand => &["on-demand"],
        CapacityType::Spot => &["spot"],
        CapacityType::SpotThenOnDemand => &["spot", "on-demand"],
    };
    let mut requirements = vec![
        within("node.kubernetes.io/instance-type", &json!(types)),
        within("karpenter.sh/capacity-type", &json!(capacity_types)),
    ];
    if !nodes.zones.is_empty() {
        requirements.push(within("topology.kubernetes.io/zone", &json!(nodes.zones)));
    }
    let class = class.clone().unwrap_or_default();
    Pool {
        api_version: "karpenter.sh/v1".to_owned(),
        kind: KIND.to_owned(),
        spec: json!({
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeClassRef": {"group": class.group, "kind": class.kind, "name": class.name},
                    "taints": [{"key": POOL, "value": name, "effect": "NoSchedule"}],
                    "requirements": requirements,
                    // A run may be longer than a node's usual life.
                    "expireAfter": "Never",
                },
            },
            "limits": {GPU: gpus_of_node.to_string()},
            "disruption": {
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": format!("{}s", nodes.ttl_after_idle.as_secs()),
                // A node with a pod stays until the run has ended. Not by `do-not-disrupt` on the pod: that
                // would also keep it from being told when a Spot node is taken away.
                "budgets": [
                    {"nodes": "0", "reasons": ["Drifted", "Underutilized"]},
                    {"nodes": "100%", "reasons": ["Empty"]},
                ],
            },
        }),
        metadata: run.metadata_of_cluster(name),
    }
}

fn within(key: &str, values: &Value) -> Value {
    json!({"key": key, "operator": "In", "values": values})
}

pub(super) fn put(pod: &mut PodSpec, name: &str) {
    select(pod, POOL, name);
    tolerate(pod, POOL, Some(name));
    tolerate(pod, GPU, None);
}
