//! Reading a workspace's status and events, a trainer's word, and a registry with an adapter.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::condition::READY;
use api::workspace::{AdapterStatus, FineTuneWorkspaceStatus, Phase};
use api::{FineTuneWorkspace, TrainerStatus};
use axum::Router;
use axum::routing::get;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use kube::runtime::wait::Condition;
use testkit::registry::Registry;
use tests_cluster::{Place, until};
use tokio::net::TcpListener;

/// An event on the only workspace.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) reason: String,
    pub(crate) type_: String,
    pub(crate) note: String,
}

/// The only workspace's events, the oldest first.
pub(crate) async fn events(place: &Place) -> Vec<Told> {
    let api: Api<Event> = Api::namespaced(place.client.clone(), &place.namespace);
    let mut list = api.list(&ListParams::default()).await.unwrap().items;
    list.retain(|event| {
        let about = event.regarding.as_ref().and_then(|about| about.kind.as_deref());
        about == Some("FineTuneWorkspace")
    });
    list.sort_by_key(|event| event.event_time.clone());
    let told = list.into_iter().map(|event| Told {
        name: event.metadata.name.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        type_: event.type_.unwrap_or_default(),
        note: event.note.unwrap_or_default(),
    });
    told.collect()
}

/// The workspace's status once it is in a phase with a reason.
pub(crate) async fn reached(place: &Place, phase: Phase, reason: &str) -> FineTuneWorkspaceStatus {
    let found = until(&place.workspaces, "reviews", is_in(phase, reason)).await.unwrap();
    found.unwrap().status.unwrap()
}

fn is_in(phase: Phase, reason: &str) -> impl Condition<FineTuneWorkspace> {
    let reason = reason.to_owned();
    move |workspace: Option<&FineTuneWorkspace>| {
        let status = workspace.and_then(|workspace| workspace.status.as_ref());
        status.is_some_and(|status| {
            status.phase == Some(phase) && condition(status, READY).1 == reason
        })
    }
}

/// Status, reason and message of a condition.
pub(crate) fn condition(status: &FineTuneWorkspaceStatus, type_: &str) -> (String, String, String) {
    status
        .conditions
        .iter()
        .find(|one| one.type_ == type_)
        .map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
        .unwrap_or_default()
}

/// A trainer's `/status` at an address of this machine that no other test uses.
pub(crate) async fn trainer(
    address: &str,
    status: impl Fn() -> TrainerStatus + Clone + Send + Sync + 'static,
) {
    let at: SocketAddr = format!("{address}:{}", plan::render::PORT).parse().unwrap();
    let listener = TcpListener::bind(at).await.unwrap();
    let answer = move || std::future::ready(serde_json::to_string(&status()).unwrap());
    let router = Router::new().route("/status", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// An adapter in a registry that asks for a login.
pub(crate) async fn push(registry: &Registry) -> AdapterStatus {
    push_weights(registry, "weights").await
}

/// One with these weights.
pub(crate) async fn push_weights(registry: &Registry, weights: &str) -> AdapterStatus {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    std::fs::write(folder.path().join("adapter_model.safetensors"), weights).unwrap();
    let login = tempfile::tempdir().unwrap();
    let bytes = secret("push", registry).data.unwrap().remove(".dockerconfigjson").unwrap().0;
    std::fs::write(login.path().join("config.json"), bytes).unwrap();
    let image = oci::adapter_image(folder.path(), &BTreeMap::new()).unwrap();
    let reference = format!("{}/team/reviews:x", registry.host());
    let options =
        oci::Options { docker_config: Some(login.path().to_owned()), ..oci::Options::default() };
    let pushed = oci::push::push(&image, &reference.parse().unwrap(), &options).await.unwrap();
    AdapterStatus { image: reference, digest: pushed.digest, size: Some(7) }
}

/// A secret with the registry's login.
pub(crate) fn secret(name: &str, registry: &Registry) -> Secret {
    let config = serde_json::json!({"auths": {registry.host(): {
        "username": "team", "password": "canary-in-a-secret",
        "auth": "dGVhbTpjYW5hcnktaW4tYS1zZWNyZXQ=",
    }}});
    Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(
            [(
                ".dockerconfigjson".to_owned(),
                k8s_openapi::ByteString(config.to_string().into_bytes()),
            )]
            .into(),
        ),
        ..Secret::default()
    }
}
