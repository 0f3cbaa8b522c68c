//! Nothing is lost and nothing is told twice, wherever the operator or the API server is cut off.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::Termination;
use api::condition::SUSPENDED;
use api::workspace::{AdapterStatus, Phase};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use testkit::cluster::tools::needs_control_plane;
use testkit::registry::{Registry, needs_go};
use tests_cluster::{Cut, Ending, Operator, Place, WORKSPACE, install_these, until};

use crate::support::{condition, events, push, reached, secret};

/// The operator is ended after every single write, before it learns of its success. The run ends as one
/// that nobody disturbed: the same objects, the same status, the same events, each of them once.
#[tokio::test]
async fn ended_after_every_write() {
    let name = "ended_after_every_write";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let registry = Registry::with_login("team", "canary-in-a-secret").unwrap();
    let adapter = push(&registry).await;

    let place = Place::new("undisturbed").await.unwrap();
    let operator = Operator::start(&place, false).unwrap();
    story(&place, &registry, &adapter).await;
    let undisturbed = outcome(&place).await;
    drop(operator);

    let place = Arc::new(Place::new("ended-after-every-write").await.unwrap());
    let cut = Cut::new(&place).await.unwrap();
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let lives = tokio::spawn({
        let place = Arc::clone(&place);
        async move {
            let mut lives = 0;
            loop {
                cut.allow(1);
                let mut operator = Operator::start_by(&place, &cut.kubeconfig(), false).unwrap();
                lives += 1;
                tokio::select! {
                    () = cut.spent() => operator.kill().unwrap(),
                    _ = &mut is_done => return lives,
                }
            }
        }
    });
    story(&place, &registry, &adapter).await;
    let ended = outcome(&place).await;
    done.send(()).unwrap();
    let lives = lives.await.unwrap();
    assert!(lives > 30, "the operator was ended only {lives} times");
    assert_eq!(ended, undisturbed);
}

/// A run with a bit of everything: out of memory, held and let go, another revision, success, clearing
/// away. Each phase is waited for, so that each is told.
async fn story(place: &Place, registry: &Registry, adapter: &AdapterStatus) {
    place.secrets.create(&PostParams::default(), &secret("push", registry)).await.unwrap();
    let output =
        format!("output: {{image: \"{}/team/reviews\", pushSecret: push}}", registry.host());
    let first = WORKSPACE.replace("output: {image: registry.example.com/team/reviews}", &output);
    place.apply(&first).await.unwrap();
    reached(place, Phase::Preflight, "PreflightRunning").await;
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    reached(place, Phase::Provisioning, "Starting").await;
    place.run_pod("-t0").await.unwrap();
    reached(place, Phase::Training, "Training").await;
    place.end_pod("-t0", Ending::exit(12)).await.unwrap();
    place.job_name("-t1").await.unwrap();
    reached(place, Phase::Provisioning, "Starting").await;
    place.run_pod("-t1").await.unwrap();
    reached(place, Phase::Training, "Training").await;
    place.apply(&format!("{first}  suspend: true\n")).await.unwrap();
    let status = reached(place, Phase::Suspended, "SuspendedByUser").await;
    assert_eq!(condition(&status, SUSPENDED).0, "True");
    place.apply(&format!("{first}  suspend: false\n")).await.unwrap();
    reached(place, Phase::Provisioning, "Starting").await;

    let second = format!(
        "{first}  suspend: false\n  hyperparameters: {{epochs: 3}}\n  limits: {{ttlAfterFinished: 1h}}\n"
    );
    place.apply(&second).await.unwrap();
    reached(place, Phase::Preflight, "PreflightRunning").await;
    until(&place.jobs, &place.job_name("-pre").await.unwrap(), |job: Option<&Job>| job.is_some())
        .await
        .unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    reached(place, Phase::Provisioning, "Starting").await;
    place.run_pod("-t0").await.unwrap();
    reached(place, Phase::Training, "Training").await;
    let report = Termination { adapter: Some(adapter.clone()), ..Termination::default() };
    place.end_pod("-t0", Ending::well(report)).await.unwrap();
    reached(place, Phase::Succeeded, "Succeeded").await;
    let is_given_time = |job: Option<&Job>| {
        job.and_then(|job| job.spec.as_ref()?.ttl_seconds_after_finished) == Some(3600)
    };
    for suffix in ["-pre", "-t0"] {
        let name = place.job_name(suffix).await.unwrap();
        until(&place.jobs, &name, is_given_time).await.unwrap();
    }
}

/// Objects, status and events, without what differs from one run to the next.
async fn outcome(place: &Place) -> Value {
    let workspace = place.workspaces.get("reviews").await.unwrap();
    let mut status = json!(workspace.status.unwrap());
    forget(&mut status);
    let all = ListParams::default();
    let jobs: Vec<Value> = place
        .jobs
        .list(&all)
        .await
        .unwrap()
        .into_iter()
        .map(|job| {
            json!([job.metadata.name, job.spec.map(|spec| (spec.suspend, spec.backoff_limit))])
        })
        .collect();
    let maps = place.config_maps.list(&all.labels(plan::names::WORKSPACE)).await.unwrap();
    let maps: Vec<_> = maps.into_iter().map(|map| map.metadata.name).collect();
    let told = events(place).await;
    let once: BTreeSet<_> = told.iter().map(|event| &event.name).collect();
    assert_eq!(once.len(), told.len(), "an event is told twice: {told:?}");
    // Whether a pod's end is seen before its Job's depends on chance.
    let by_chance = ["Publishing", "Starting"];
    let told: Vec<_> =
        told.into_iter().filter(|event| !by_chance.contains(&event.reason.as_str())).collect();
    let told: Vec<_> = told.into_iter().map(|event| (event.reason, event.note)).collect();
    json!({"status": status, "jobs": jobs, "configMaps": maps, "events": told})
}

/// Times, and the letters by which pods of a Job differ.
fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["lastTransitionTime", "start", "end"] {
                fields.remove(name);
            }
            if let Some(Value::String(pod)) = fields.get_mut("pod") {
                pod.truncate(pod.len() - 5);
            }
            fields.values_mut().for_each(forget);
        }
        Value::Array(items) => items.iter_mut().for_each(forget),
        _ => {}
    }
}

/// An operator that may look at one namespace alone: it has a role there and none for the cluster. The API
/// server is killed in the midst of a training, and the run goes on. Where that takes longer than a lease
/// holds, the operator ends, and is started again as in a pod.
#[tokio::test]
async fn api_server_restarts_under_an_operator_of_one_namespace() {
    let name = "api_server_restarts_under_an_operator_of_one_namespace";
    if !needs_control_plane(name) {
        return;
    }
    let place = Place::alone("one-namespace").await.unwrap();
    let roles = Operator::print(&["rbac", "--namespace", "one-namespace"]).unwrap();
    assert!(!roles.contains("ClusterRole"), "{roles}");
    install_these(&place.client, &roles, &api::crd_yaml()).await.unwrap();
    let mut operator = Operator::start(&place, true).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    let before = reached(&place, Phase::Training, "Training").await;

    // An API server that has just started refuses what it will allow in a moment: this is asked before.
    assert!(!operator.log().unwrap().contains("forbidden"), "{}", operator.log().unwrap());

    let plane = place.plane;
    tokio::task::spawn_blocking(|| plane.restart_api_server()).await.unwrap().unwrap();
    let after = place.workspaces.get("reviews").await.unwrap().status.unwrap();
    assert_eq!(after, before);
    let goes_on = async {
        place.end_pod("-t0", Ending::exit(12)).await.unwrap();
        place.run_pod("-t1").await.unwrap();
        reached(&place, Phase::Training, "Training").await;
    };
    operator.kept_until(|| Operator::start(&place, true), goes_on).await.unwrap();
    let told = events(&place).await;
    let began = told.iter().filter(|event| event.reason == "PreflightRunning").count();
    assert_eq!(began, 1, "{told:?}");
}
