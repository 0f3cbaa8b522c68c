//! The life of a workspace that goes well, and what the user may do in it.

use api::Termination;
use api::condition::{COMPLETE, READY, STALLED, SUSPENDED};
use api::workspace::{Phase, Progress, Resolved, Score};
use kube::api::{DeleteParams, ListParams, PatchParams, PostParams};
use testkit::cluster::tools::needs_control_plane;
use testkit::registry::{Registry, needs_go};
use tests_cluster::{Ending, Operator, Place, WORKSPACE, until};

use crate::support::{condition, events, push, reached, secret};

fn resolved() -> Termination {
    let resolved = Resolved {
        examples: 900,
        training_tokens: 81_000,
        memory: 1 << 31,
        seconds: 240,
        ..Resolved::default()
    };
    Termination { resolved: Some(resolved), ..Termination::default() }
}

/// Preflight, a Job that is made suspended and let go, the registry's word, success; then deletion, after
/// which nothing is left.
#[tokio::test]
async fn from_apply_to_a_published_adapter() {
    let name = "from_apply_to_a_published_adapter";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let place = Place::new("life").await.unwrap();
    let registry = Registry::with_login("team", "canary-in-a-secret").unwrap();
    let adapter = push(&registry).await;
    place.secrets.create(&PostParams::default(), &secret("push", &registry)).await.unwrap();
    let operator = Operator::start(&place, false).unwrap();
    let repository = format!("{}/team/reviews", registry.host());
    let output = format!("output: {{image: \"{repository}\", pushSecret: push}}");
    place
        .apply(&WORKSPACE.replace("output: {image: registry.example.com/team/reviews}", &output))
        .await
        .unwrap();

    reached(&place, Phase::Preflight, "PreflightRunning").await;
    let (job, _) = place.pod_of("-pre").await.unwrap();
    assert!(job.spec.unwrap().template.spec.unwrap().containers[0].resources.is_some());
    place.end_pod("-pre", Ending::well(resolved())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    let status = reached(&place, Phase::Training, "Training").await;
    assert_eq!(status.resolved.unwrap().examples, 900);
    let report = Termination {
        adapter: Some(adapter.clone()),
        progress: Some(Progress {
            summary: "40/40".to_owned(),
            step: 40,
            total_steps: 40,
            train_loss: Some(0.5),
            ..Progress::default()
        }),
        evaluation: vec![Score { metric: "ExactMatch".to_owned(), base: Some(0.1), tuned: 0.8 }],
        ..Termination::default()
    };
    place.end_pod("-t0", Ending::well(report)).await.unwrap();

    let status = reached(&place, Phase::Succeeded, "Succeeded").await;
    assert_eq!(status.adapter, Some(adapter));
    assert_eq!(condition(&status, READY).0, "True");
    assert_eq!(condition(&status, COMPLETE).0, "True");
    assert_eq!(status.attempts.len(), 1);
    assert_eq!(status.evaluation.len(), 1);
    let told = events(&place).await;
    let mut reasons: Vec<&str> = told.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons.first().unwrap(), &"PreflightRunning");
    assert_eq!(reasons.last().unwrap(), &"Succeeded");
    assert!(told.iter().all(|event| event.type_ == "Normal"), "{told:?}");
    reasons.sort_unstable();
    let count = reasons.len();
    reasons.dedup();
    assert_eq!(reasons.len(), count, "an event is told twice: {told:?}");

    place.workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
    gone(&place).await;
    assert!(
        !operator.log().unwrap().contains("\"level\":\"ERROR\""),
        "{}",
        operator.log().unwrap()
    );
}

/// Waits until the garbage collector has taken all that was made for the workspace.
pub(crate) async fn gone(place: &Place) {
    for job in place.jobs.list(&ListParams::default()).await.unwrap().items {
        let name = job.metadata.name.unwrap();
        until(&place.jobs, &name, |job: Option<&_>| job.is_none()).await.unwrap();
    }
    for pod in place.pods.list(&ListParams::default()).await.unwrap().items {
        let name = pod.metadata.name.unwrap();
        until(&place.pods, &name, |pod: Option<&_>| pod.is_none()).await.unwrap();
    }
    for map in place.config_maps.list(&ListParams::default()).await.unwrap().items {
        let name = map.metadata.name.unwrap();
        if name != "kube-root-ca.crt" {
            until(&place.config_maps, &name, |map: Option<&_>| map.is_none()).await.unwrap();
        }
    }
    assert_eq!(place.left().await.unwrap(), Vec::<String>::new());
}

/// `spec.suspend` takes the pod away, and gives it back.
#[tokio::test]
async fn suspend_and_go_on() {
    if !needs_control_plane("suspend_and_go_on") {
        return;
    }
    let place = Place::new("suspend").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.end_pod("-pre", Ending::well(resolved())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;

    place.apply(&format!("{WORKSPACE}  suspend: true\n")).await.unwrap();
    let status = reached(&place, Phase::Suspended, "SuspendedByUser").await;
    assert_eq!(condition(&status, SUSPENDED).0, "True");
    let job = place.job_name("-t0").await.unwrap();
    until(&place.jobs, &job, |job: Option<&k8s_openapi::api::batch::v1::Job>| {
        job.and_then(|job| job.status.as_ref())
            .is_some_and(|status| status.active.unwrap_or(0) == 0)
    })
    .await
    .unwrap();

    place.apply(&format!("{WORKSPACE}  suspend: false\n")).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    let status = reached(&place, Phase::Training, "Training").await;
    assert_eq!(condition(&status, SUSPENDED).0, "False");
}

/// A queue's name is on the Job, and the operator leaves the Job suspended until the queue lets it go.
#[tokio::test]
async fn a_queue_admits() {
    if !needs_control_plane("a_queue_admits") {
        return;
    }
    let place = Place::new("queue").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    let queued = format!("{WORKSPACE}  compute: {{queueName: team}}\n");
    place.apply(&queued).await.unwrap();
    place.end_pod("-pre", Ending::well(resolved())).await.unwrap();
    reached(&place, Phase::Queued, "AwaitingAdmission").await;
    let name = place.job_name("-t0").await.unwrap();
    let job = place.jobs.get(&name).await.unwrap();
    assert_eq!(job.spec.unwrap().suspend, Some(true));
    assert_eq!(job.metadata.labels.unwrap()["kueue.x-k8s.io/queue-name"], "team");

    // As Kueue does it.
    let admitted = serde_json::json!({"spec": {"suspend": false}});
    let merge = kube::api::Patch::Merge(&admitted);
    place.jobs.patch(&name, &PatchParams::default(), &merge).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;
}

/// Another base for training starts the next revision and ends the running one; other limits do not.
#[tokio::test]
async fn an_edit_starts_the_next_revision() {
    if !needs_control_plane("an_edit_starts_the_next_revision") {
        return;
    }
    let place = Place::new("revision").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.end_pod("-pre", Ending::well(resolved())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    let first = reached(&place, Phase::Training, "Training").await.revision;
    let old = place.job_name("-t0").await.unwrap();

    let edited = format!("{WORKSPACE}  limits: {{retries: 1}}\n");
    let generation = place.apply(&edited).await.unwrap().metadata.generation;
    until(&place.workspaces, "reviews", move |workspace: Option<&api::FineTuneWorkspace>| {
        let status = workspace.and_then(|workspace| workspace.status.as_ref());
        status.is_some_and(|status| status.observed_generation == generation)
    })
    .await
    .unwrap();
    assert_eq!(reached(&place, Phase::Training, "Training").await.revision, first);

    place.apply(&format!("{edited}  hyperparameters: {{epochs: 3}}\n")).await.unwrap();
    let second = reached(&place, Phase::Preflight, "PreflightRunning").await.revision;
    assert_ne!(first, second);
    until(&place.jobs, &old, |job: Option<&_>| job.is_none()).await.unwrap();
}

/// Local paths have no meaning in a cluster, and the status says so field by field.
#[tokio::test]
async fn a_local_workspace_is_rejected() {
    if !needs_control_plane("a_local_workspace_is_rejected") {
        return;
    }
    let place = Place::new("rejected").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    let local = WORKSPACE
        .replace("image: \"registry.example.com/models/smollm2:135m\"", "path: models/smollm2");
    place.apply(&local).await.unwrap();
    let status = reached(&place, Phase::Rejected, "InvalidSpec").await;
    let (stalled, _, message) = condition(&status, STALLED);
    assert_eq!(stalled, "True");
    assert!(message.contains("spec.baseModel.path: a path has no meaning"), "{message}");
    assert_eq!(place.left().await.unwrap(), Vec::<String>::new());
    place.apply(WORKSPACE).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
}
