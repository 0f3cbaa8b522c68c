//! What a pass is for, for those who write and tell.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt as _};

/// The object that a pass is for, as far as it does not matter of what kind it is.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) kind: &'static str,
    pub(crate) resource: ApiResource,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What it is known by in this process, with what its user has last written.
    pub(crate) key: String,
    pub(crate) reference: ObjectReference,
}

impl Subject {
    pub(crate) fn new<K>(kind: &'static str, object: &K) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let generation = object.meta().generation.unwrap_or_default();
        Self {
            kind,
            resource: ApiResource::erase::<K>(&()),
            key: format!("{kind}/{namespace}/{name}/{generation}"),
            reference: object.object_ref(&()),
            namespace,
            name,
        }
    }
}
