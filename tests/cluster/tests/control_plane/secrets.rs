//! What a secret holds is in nothing that anybody may read: logs, events, status, `ConfigMap`s, Jobs, pods.

use api::Termination;
use api::workspace::{AdapterStatus, Phase};
use k8s_openapi::ByteString;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, ResourceExt as _};
use testkit::cluster::tools::needs_control_plane;
use testkit::registry::{Registry, needs_go};
use tests_cluster::{Ending, Operator, Place, WORKSPACE};

use crate::support::{push, reached, secret};

/// The password, and what of it stands in Docker's configuration.
const CANARIES: [&str; 3] =
    ["canary-in-a-secret", "Y2FuYXJ5LWluLWEtc2VjcmV0", "dGVhbTpjYW5hcnktaW4tYS1zZWNyZXQ"];

/// With logins that work, that are refused and that cannot be read; with the log as loud as it gets.
#[tokio::test]
async fn secrets_are_in_nothing_that_anybody_may_read() {
    let name = "secrets_are_in_nothing_that_anybody_may_read";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let place = Place::new("canary").await.unwrap();
    let registry = Registry::with_login("team", "canary-in-a-secret").unwrap();
    let adapter = push(&registry).await;
    let operator = Operator::start(&place, false).unwrap();

    // Cannot be read: the login without the JSON around it.
    let mut torn = secret("push", &registry);
    let data = torn.data.as_mut().unwrap().get_mut(".dockerconfigjson").unwrap();
    data.0.truncate(data.0.len() - 2);
    torn.type_ = None;
    place.secrets.create(&PostParams::default(), &torn).await.unwrap();
    let pulled = WORKSPACE.replace("smollm2:135m\"}", "smollm2:135m\", pullSecret: push}");
    let output =
        format!("output: {{image: \"{}/team/reviews\", pushSecret: push}}", registry.host());
    place
        .apply(&pulled.replace("output: {image: registry.example.com/team/reviews}", &output))
        .await
        .unwrap();
    reached(&place, Phase::Rejected, "InvalidSecret").await;
    no_canary(&place, &operator).await;

    // Is refused: the password with a letter more.
    let mut wrong = torn;
    let data = wrong.data.as_mut().unwrap().get_mut(".dockerconfigjson").unwrap();
    let auth = "dGVhbTpjYW5hcnktaW4tYS1zZWNyZXQx";
    let config = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", registry.host());
    *data = ByteString(config.into_bytes());
    place.secrets.replace("push", &PostParams::default(), &wrong).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    finish(&place, &adapter).await;
    reached(&place, Phase::Publishing, "RegistryUnreachable").await;
    no_canary(&place, &operator).await;

    // Works.
    place.secrets.replace("push", &PostParams::default(), &secret_as(&registry)).await.unwrap();
    reached(&place, Phase::Succeeded, "Succeeded").await;
    no_canary(&place, &operator).await;
}

async fn finish(place: &Place, adapter: &AdapterStatus) {
    let report = Termination { adapter: Some(adapter.clone()), ..Termination::default() };
    place.end_pod("-t0", Ending::well(report)).await.unwrap();
}

/// The type of a secret cannot be changed: it is that of the first one.
fn secret_as(registry: &Registry) -> k8s_openapi::api::core::v1::Secret {
    k8s_openapi::api::core::v1::Secret { type_: None, ..secret("push", registry) }
}

async fn no_canary(place: &Place, operator: &Operator) {
    let mut texts = vec![("the operator's log".to_owned(), operator.log().unwrap())];
    let kinds = [
        ("", "v1", "ConfigMap"),
        ("", "v1", "Event"),
        ("", "v1", "Pod"),
        ("batch", "v1", "Job"),
        ("events.k8s.io", "v1", "Event"),
        ("anneal.dev", "v1alpha1", "FineTuneWorkspace"),
    ];
    for (group, version, kind) in kinds {
        let resource =
            ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(place.client.clone(), &place.namespace, &resource);
        let found = api.list(&ListParams::default()).await.unwrap().items;
        assert!(kind != "FineTuneWorkspace" || found.len() == 1);
        texts.extend(found.iter().map(|one| {
            (format!("{kind} {}", one.name_any()), serde_json::to_string(one).unwrap())
        }));
    }
    for (what, text) in texts {
        for canary in CANARIES {
            assert!(!text.contains(canary), "{what} holds `{canary}`");
        }
    }
}
