//! What the caches keep of an object: no more than decisions and metrics are made from, since there are
//! as many as there are workspaces.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt;

/// Objects that a page of a first look holds. Each page is in memory as text and as objects at once, and there
/// is one for each kind.
pub(crate) const PAGE: u32 = 25;

/// Nobody's fields are managed by what is in the cache: the API server knows.
pub(crate) fn without_managers<K: ResourceExt>(object: &mut K) {
    *object.managed_fields_mut() = Vec::new();
}

/// A workspace or server without the text that it was applied with, which `kubectl apply` leaves in it.
pub(crate) fn of_resource<K: ResourceExt>(object: &mut K) {
    without_managers(object);
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// A Job without what its pods are made from; `apply` asks for that where the Job is changed.
pub(crate) fn of_job(job: &mut Job) {
    without_managers(job);
    plan::render::lean(job);
}

/// A pod's labels, owner and status, its node, and what its containers ask for.
pub(crate) fn of_pod(pod: &mut Pod) {
    without_managers(pod);
    pod.metadata.annotations = None;
    let Some(spec) = pod.spec.take() else { return };
    let asked = spec.containers.into_iter().map(|container| Container {
        name: container.name,
        resources: container.resources,
        ..Container::default()
    });
    pod.spec = Some(PodSpec {
        containers: asked.collect(),
        node_name: spec.node_name,
        ..PodSpec::default()
    });
}
