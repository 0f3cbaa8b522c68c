//! GKE's custom `ComputeClass`, as Google documents it: a list of what to try, in this order.

use api::workspace::CapacityType;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::pool::{GPU, Pool, select, tolerate};
use crate::names::{POOL, Run};
use crate::nodes::Placement;

pub(super) const KIND: &str = "ComputeClass";
/// Label by which a pod selects a class, and taint of its nodes.
const CLASS: &str = "cloud.google.com/compute-class";
/// Longest delay that a class may have.
const MOST_MINUTES: u64 = 1440;

/// Each product on Spot first and then each on demand, as far as the workspace allows both.
pub(super) fn compute_class(run: &Run<'_>, placement: &Placement<'_>, name: String) -> Pool {
    let mut labels = placement.nodes.labels.clone();
    labels.insert(POOL.to_owned(), name.clone());
    let spot: &[bool] = match placement.capacity_type {
        CapacityType::OnDemand => &[false],
        CapacityType::Spot => &[true],
        CapacityType::SpotThenOnDemand => &[true, false],
    };
    let all = spot.iter().flat_map(|spot| {
        let each = placement.products.iter().zip(&placement.types);
        each.filter_map(|(product, type_)| {
            Some(priority(placement, product.gke.as_deref()?, type_, *spot))
        })
    });
    let minutes = placement.nodes.ttl_after_idle.as_secs().div_ceil(60).clamp(1, MOST_MINUTES);
    Pool {
        api_version: "cloud.google.com/v1".to_owned(),
        kind: KIND.to_owned(),
        spec: json!({
            "priorities": all.collect::<Vec<Value>>(),
            "nodePoolAutoCreation": {"enabled": true},
            "nodePoolConfig": {"nodeLabels": labels},
            "autoscalingPolicy": {"consolidationDelayMinutes": minutes},
            // Better to wait than to run on a node without the GPU.
            "whenUnsatisfiable": "DoNotScaleUp",
        }),
        metadata: run.metadata_of_cluster(name),
    }
}

fn priority(placement: &Placement<'_>, gpu: &str, machine: &str, spot: bool) -> Value {
    let gpus = placement.gpus_of_node;
    let mut one = json!({
        "machineType": machine,
        "gpu": {"type": gpu, "count": gpus, "driverVersion": "default"},
        "spot": spot,
    });
    if !placement.nodes.zones.is_empty() {
        one["location"] = json!({"zones": placement.nodes.zones});
    }
    one
}

pub(super) fn put(pod: &mut PodSpec, name: &str) {
    select(pod, CLASS, name);
    tolerate(pod, CLASS, Some(name));
    tolerate(pod, GPU, None);
}
