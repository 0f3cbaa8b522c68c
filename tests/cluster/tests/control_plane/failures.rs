//! What goes wrong, and what the status says of it.

use std::collections::BTreeMap;

use api::condition::{FAILED, READY, RECONCILING};
use api::workspace::Phase;
use api::{Fault, Termination};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PatchParams, PostParams};
use serde_json::json;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Ending, Operator, Place, WORKSPACE};

use crate::support::{condition, reached};

async fn place(name: &str) -> (Place, Operator) {
    let place = Place::new(name).await.unwrap();
    let operator = Operator::start(&place, false).unwrap();
    (place, operator)
}

/// A bad line: the file and the line are in the status, no training Job is made, and an edit tries anew.
#[tokio::test]
async fn bad_data_is_named_and_never_tried_again() {
    if !needs_control_plane("bad_data_is_named_and_never_tried_again") {
        return;
    }
    let (place, _operator) = place("bad-data").await;
    place.apply(WORKSPACE).await.unwrap();
    let fault = Fault {
        file: Some("/mnt/train/data/a.jsonl".to_owned()),
        line: Some(7),
        message: "is not JSON".to_owned(),
        ..Fault::default()
    };
    let report = Termination { faults: vec![fault], ..Termination::default() };
    let ending = Ending { exit: 10, report: Some(report), ..Ending::default() };
    place.end_pod("-pre", ending).await.unwrap();
    let status = reached(&place, Phase::Failed, "InvalidData").await;
    let (_, _, message) = condition(&status, FAILED);
    assert!(message.contains("/mnt/train/data/a.jsonl:7: is not JSON"), "{message}");
    let jobs = place.jobs.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.len(), 1, "only the preflight");
    assert_eq!(jobs[0].status.as_ref().unwrap().failed, Some(1), "tried once");

    place.apply(&format!("{WORKSPACE}  limits: {{retries: 1}}\n")).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;
}

/// Out of memory: the next Job is told to halve the micro-batch.
#[tokio::test]
async fn out_of_memory_halves_the_micro_batch() {
    if !needs_control_plane("out_of_memory_halves_the_micro_batch") {
        return;
    }
    let (place, _operator) = place("memory").await;
    place.apply(&format!("{WORKSPACE}  limits: {{retries: 2}}\n")).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    place.end_pod("-t0", Ending::exit(12)).await.unwrap();
    let (job, _) = place.pod_of("-t1").await.unwrap();
    assert_eq!(halvings(&job), Some("1".to_owned()));
    let killed = Ending { exit: 137, reason: Some("OOMKilled".to_owned()), report: None };
    place.end_pod("-t1", killed.clone()).await.unwrap();
    let (job, _) = place.pod_of("-t2").await.unwrap();
    assert_eq!(halvings(&job), Some("2".to_owned()));
    place.end_pod("-t2", killed).await.unwrap();
    let status = reached(&place, Phase::Failed, "OutOfMemory").await;
    let outcomes: Vec<&str> =
        status.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert_eq!(outcomes, ["OutOfMemory"; 3]);
}

fn halvings(job: &Job) -> Option<String> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let variables = pod.containers[0].env.as_ref()?;
    let one = variables.iter().find(|one| one.name == "ANNEAL_MICRO_BATCH_HALVINGS")?;
    one.value.clone()
}

/// A secret that is missing or malformed is told by its field, before any pod is made.
#[tokio::test]
async fn secrets_are_looked_at_first() {
    if !needs_control_plane("secrets_are_looked_at_first") {
        return;
    }
    let (place, _operator) = place("secrets").await;
    let named = WORKSPACE.replace("team/reviews}", "team/reviews, pushSecret: push}");
    place.apply(&named).await.unwrap();
    let status = reached(&place, Phase::Rejected, "InvalidSecret").await;
    let (_, _, message) = condition(&status, READY);
    assert!(message.contains("spec.output.pushSecret: there is no secret `push`"), "{message}");
    assert_eq!(place.left().await.unwrap(), Vec::<String>::new());

    let data = BTreeMap::from([(
        ".dockerconfigjson".to_owned(),
        k8s_openapi::ByteString(json!({"auths": {}}).to_string().into_bytes()),
    )]);
    let secret = Secret {
        metadata: ObjectMeta { name: Some("push".to_owned()), ..ObjectMeta::default() },
        data: Some(data),
        ..Secret::default()
    };
    place.secrets.create(&PostParams::default(), &secret).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
}

/// A quota's words are in the status.
#[tokio::test]
async fn a_quota_that_refuses_the_pod_is_told() {
    if !needs_control_plane("a_quota_that_refuses_the_pod_is_told") {
        return;
    }
    let place = Place::new("quota").await.unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(place.client.clone(), &place.namespace);
    let hard = BTreeMap::from([("pods".to_owned(), Quantity("0".to_owned()))]);
    let quota = ResourceQuota {
        metadata: ObjectMeta { name: Some("none".to_owned()), ..ObjectMeta::default() },
        spec: Some(ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() }),
        status: None,
    };
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    tests_cluster::until(&quotas, "none", |quota: Option<&ResourceQuota>| {
        quota.and_then(|quota| quota.status.as_ref()?.hard.as_ref()).is_some()
    })
    .await
    .unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    let status = reached(&place, Phase::Preflight, "PodRefused").await;
    let (_, _, message) = condition(&status, RECONCILING);
    assert!(message.contains("exceeded quota: none"), "{message}");
}

/// An object that the API server refuses is told, in its words, and the operator does not run in circles.
#[tokio::test]
async fn a_job_that_is_refused_is_told() {
    if !needs_control_plane("a_job_that_is_refused_is_told") {
        return;
    }
    let (place, operator) = place("refused-job").await;
    let odd = format!("{WORKSPACE}  compute: {{nodeSelector: {{\"no such label!\": x}}}}\n");
    place.apply(&odd).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    let status = reached(&place, Phase::Queued, "ObjectRefused").await;
    let (ready, _, message) = condition(&status, READY);
    assert_eq!(ready, "False");
    assert!(message.contains("no such label!") && message.contains("; next: "), "{message}");
    let before = operator.writes().await.unwrap();
    let mut every = tokio::time::interval(std::time::Duration::from_secs(5));
    every.tick().await;
    every.tick().await;
    assert!(operator.writes().await.unwrap() - before <= 2);
    place.apply(WORKSPACE).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;
}

/// The scheduler's and the kubelet's words are in the status.
#[tokio::test]
async fn what_holds_a_pod_up_is_told() {
    if !needs_control_plane("what_holds_a_pod_up_is_told") {
        return;
    }
    let (place, _operator) = place("held-up").await;
    place.apply(WORKSPACE).await.unwrap();
    let (_, pod) = place.pod_of("-pre").await.unwrap();
    let waiting =
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "401 from the registry"}});
    place.pod_status(&pod, "Pending", waiting).await.unwrap();
    let status = reached(&place, Phase::Preflight, "ImagePullFailed").await;
    let (_, _, message) = condition(&status, READY);
    assert!(message.contains("cannot pull an image: 401 from the registry"), "{message}");
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();

    let (_, pod) = place.pod_of("-t0").await.unwrap();
    let name = pod.metadata.name.unwrap();
    let status = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient memory"}]}});
    let patch = kube::api::Patch::Strategic(&status);
    place.pods.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    let status = reached(&place, Phase::Provisioning, "Unschedulable").await;
    assert!(condition(&status, READY).2.contains("1 Insufficient memory"));
}
