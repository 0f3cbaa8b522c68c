//! Dynamic resource allocation: the pod claims devices of NVIDIA's class with as much memory as the run
//! needs, and the scheduler finds them.

use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec, ResourceClaim};
use serde_json::json;

use super::pool::{GPU, Pool, tolerate};
use crate::names::Run;
use crate::nodes::Placement;

pub(super) const KIND: &str = "ResourceClaimTemplate";
/// Class and driver.
const CLASS: &str = "gpu.nvidia.com";
/// The claim's name in the pod.
const CLAIM: &str = "gpu";

/// A claim of this many devices with this much memory; it goes with the workspace.
pub(super) fn claim_template(run: &Run<'_>, placement: &Placement<'_>, name: String) -> Pool {
    let mebibytes = placement.needs.div_ceil(1 << 20).max(1);
    let memory =
        format!("device.capacity[\"{CLASS}\"].memory.compareTo(quantity(\"{mebibytes}Mi\")) >= 0");
    Pool {
        api_version: "resource.k8s.io/v1".to_owned(),
        kind: KIND.to_owned(),
        metadata: run.metadata(name, None),
        spec: json!({"spec": {"devices": {"requests": [{
            "name": CLAIM,
            "exactly": {
                "deviceClassName": CLASS,
                "allocationMode": "ExactCount",
                "count": placement.gpus,
                "selectors": [{"cel": {"expression": memory}}],
            },
        }]}}}),
    }
}

/// The claim takes the place of the extended resource.
pub(super) fn put(pod: &mut PodSpec, name: &str) {
    pod.resource_claims = Some(vec![PodResourceClaim {
        name: CLAIM.to_owned(),
        resource_claim_template_name: Some(name.to_owned()),
        ..PodResourceClaim::default()
    }]);
    for container in &mut pod.containers {
        let resources = container.resources.get_or_insert_default();
        resources.claims =
            Some(vec![ResourceClaim { name: CLAIM.to_owned(), ..ResourceClaim::default() }]);
        for map in [&mut resources.limits, &mut resources.requests].into_iter().flatten() {
            map.remove(GPU);
        }
        resources.limits = resources.limits.take().filter(|limits| !limits.is_empty());
    }
    tolerate(pod, GPU, None);
}
