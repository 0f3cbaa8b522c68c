//! Model servers against a real API server: what the operator makes of one, what it leaves alone, and what it
//! changes when adapters do.

use api::ModelServer;
use api::condition::{READY, STALLED};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Operator, Place, until};

const NAME: &str = "smollm2";

fn servers(place: &Place) -> Api<ModelServer> {
    Api::namespaced(place.client.clone(), &place.namespace)
}

fn api<K>(place: &Place) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(place.client.clone(), &place.namespace)
}

/// A server of no pods: there is no kubelet here.
async fn apply(place: &Place, adapters: Value) {
    let server = json!({
        "apiVersion": "anneal.dev/v1alpha1", "kind": "ModelServer", "metadata": {"name": NAME},
        "spec": {
            "baseModel": {"image": "registry.example.com/models/smollm2:135m"},
            "replicas": 0, "adapters": adapters,
        },
    });
    let params = PatchParams::apply("user").force();
    servers(place).patch(NAME, &params, &Patch::Apply(&server)).await.unwrap();
}

/// The server once its condition `Ready` gives a reason; with the condition's message.
async fn reached(place: &Place, reason: &'static str) -> String {
    let holds =
        move |server: Option<&ModelServer>| ready(server).is_some_and(|(is, _)| is == reason);
    let server = until(&servers(place), NAME, holds).await.unwrap();
    ready(server.as_ref()).unwrap().1
}

fn ready(server: Option<&ModelServer>) -> Option<(String, String)> {
    let server = server?;
    let status = server.status.as_ref()?;
    if status.observed_generation != server.metadata.generation {
        return None;
    }
    let ready = status.conditions.iter().find(|one| one.type_ == READY)?;
    Some((ready.reason.clone(), ready.message.clone()))
}

/// The part of the controller of Deployments: it has brought everything to what is asked for.
async fn roll_out(place: &Place) -> i64 {
    let deployments: Api<Deployment> = api(place);
    let found = until(&deployments, NAME, |found: Option<&_>| found.is_some()).await.unwrap();
    let generation = found.unwrap().metadata.generation.unwrap();
    let patch = json!({"status": {"observedGeneration": generation, "replicas": 0}});
    let params = PatchParams::default();
    deployments.patch_status(NAME, &params, &Patch::Merge(&patch)).await.unwrap();
    generation
}

#[tokio::test]
async fn a_server_gets_its_objects_and_adapters_touch_none_but_one() {
    if !needs_control_plane("a_server_gets_its_objects_and_adapters_touch_none_but_one") {
        return;
    }
    let place = Place::new("servers").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    apply(&place, json!([])).await;
    reached(&place, "Starting").await;
    let generation = roll_out(&place).await;
    reached(&place, "Serving").await;
    let owner = servers(&place).get(NAME).await.unwrap().metadata.uid;
    let metadata = [
        api::<Deployment>(&place).get(NAME).await.unwrap().metadata,
        api::<Service>(&place).get(NAME).await.unwrap().metadata,
        api::<NetworkPolicy>(&place).get(NAME).await.unwrap().metadata,
        api::<PodDisruptionBudget>(&place).get(NAME).await.unwrap().metadata,
        api::<ConfigMap>(&place).get("smollm2-adapters").await.unwrap().metadata,
    ];
    for metadata in metadata {
        let owners = metadata.owner_references.unwrap();
        assert_eq!(owners.len(), 1);
        assert_eq!(Some(&owners[0].uid), owner.as_ref());
    }

    let image = "registry.example.com/team/tickets:v1";
    apply(&place, json!([{"name": "tickets", "image": image}])).await;
    let told = |map: Option<&ConfigMap>| {
        let data = map.and_then(|map| map.data.as_ref());
        data.is_some_and(|data| data["adapters.json"].contains(image))
    };
    until(&api::<ConfigMap>(&place), "smollm2-adapters", told).await.unwrap();
    let deployment = api::<Deployment>(&place).get(NAME).await.unwrap();
    assert_eq!(deployment.metadata.generation, Some(generation), "the pods would be replaced");
}

/// A workspace's adapter is taken up as soon as the workspace says that it is there.
#[tokio::test]
async fn a_workspace_that_publishes_is_heard() {
    if !needs_control_plane("a_workspace_that_publishes_is_heard") {
        return;
    }
    let place = Place::new("servers-workspace").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    apply(&place, json!([{"name": "reviews", "workspace": "reviews"}])).await;
    reached(&place, "Starting").await;
    roll_out(&place).await;
    reached(&place, "AdapterMissing").await;
    place.apply(tests_cluster::WORKSPACE).await.unwrap();
    reached(&place, "AwaitingAdapter").await;
}

/// What has the server's name and is somebody else's is left as it is, and told.
#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone() {
    if !needs_control_plane("an_object_of_somebody_else_is_left_alone") {
        return;
    }
    let place = Place::new("servers-foreign").await.unwrap();
    let services: Api<Service> = api(&place);
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
        "spec": {"ports": [{"port": 5432}], "selector": {"app": "theirs"}},
    });
    let theirs: Service = serde_json::from_value(theirs).unwrap();
    let theirs = services.create(&PostParams::default(), &theirs).await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    apply(&place, json!([])).await;
    let message = reached(&place, "ObjectRefused").await;
    assert!(message.contains("a Service `smollm2` that is not this server's"), "{message}");
    let now = services.get(NAME).await.unwrap();
    assert_eq!((now.spec, now.metadata.uid), (theirs.spec, theirs.metadata.uid));
    services.delete(NAME, &DeleteParams::default()).await.unwrap();
    roll_out(&place).await;
    reached(&place, "Serving").await;
}

#[tokio::test]
async fn what_only_a_local_server_has_is_told() {
    if !needs_control_plane("what_only_a_local_server_has_is_told") {
        return;
    }
    let place = Place::new("servers-local").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    apply(&place, json!([{"name": "mine", "path": ".anneal/mine"}])).await;
    let message = reached(&place, "InvalidSpec").await;
    assert!(message.contains("spec.adapters[0].path: a path has no meaning"), "{message}");
    let server = servers(&place).get(NAME).await.unwrap();
    let stalled = server.status.unwrap().conditions.into_iter().find(|one| one.type_ == STALLED);
    assert_eq!(stalled.unwrap().status, "True");
}
