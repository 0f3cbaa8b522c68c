//! Waiting for the cluster, by watching it.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::runtime::wait::{Condition, await_condition};
use serde::de::DeserializeOwned;

/// Longest wait for anything. Controllers that lost the API server take their time to come back.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The object once a condition holds of it. A condition may also ask for its absence.
pub async fn until<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> Result<Option<K>>
where
    K: Clone + Debug + Send + DeserializeOwned + serde::Serialize + kube::Resource + 'static,
{
    let wait = await_condition(api.clone(), name, condition);
    if let Ok(found) = tokio::time::timeout(PATIENCE, wait).await {
        return found.with_context(|| format!("cannot watch `{name}`"));
    }
    let now = api.get_opt(name).await;
    bail!("`{name}` is not as it should be after {PATIENCE:?}; it is {}", told(&now))
}

/// An object for a failed test's reader: without what nobody looks at.
pub(crate) fn told<T: serde::Serialize, E: Debug>(object: &Result<T, E>) -> String {
    let object = match object {
        Ok(object) => object,
        Err(error) => return format!("not known: {error:?}"),
    };
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.pointer_mut("/metadata").and_then(|it| it.as_object_mut()) {
        metadata.remove("managedFields");
    }
    serde_yaml::to_string(&value).unwrap_or_default()
}

/// Whether a definition is served.
pub fn is_established(definition: Option<&CustomResourceDefinition>) -> bool {
    let status = definition.and_then(|definition| definition.status.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| one.type_ == "Established" && one.status == "True")
}
