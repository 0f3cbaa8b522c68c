//! The operator itself: restarts, two replicas, somebody else's hands, rest, deletion at any time.

use std::time::{Duration, Instant};

use api::Termination;
use api::workspace::Phase;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Ending, Operator, Place, WORKSPACE, until};

use crate::life::gone;
use crate::support::reached;

/// The operator is killed in every phase, and the run goes on as if it had not been.
#[tokio::test]
async fn killed_in_every_phase() {
    if !needs_control_plane("killed_in_every_phase") {
        return;
    }
    let place = Place::new("killed").await.unwrap();
    place.apply(WORKSPACE).await.unwrap();
    let mut operator = Operator::start(&place, false).unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    operator.kill().unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    let mut operator = Operator::start(&place, false).unwrap();
    // As soon as the Job is there: it may be suspended still, and the status may be an older one.
    place.job_name("-t0").await.unwrap();
    operator.kill().unwrap();
    let mut operator = Operator::start(&place, false).unwrap();
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;
    operator.kill().unwrap();
    place.end_pod("-t0", Ending::exit(12)).await.unwrap();
    let mut operator = Operator::start(&place, false).unwrap();
    place.job_name("-t1").await.unwrap();
    operator.kill().unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.end_pod("-t1", Ending::exit(10)).await.unwrap();
    let status = reached(&place, Phase::Failed, "InvalidData").await;
    assert_eq!(status.attempts.len(), 2);
}

/// One of two replicas leads; after its end the other one takes over.
#[tokio::test]
async fn two_replicas_and_one_leader() {
    if !needs_control_plane("two_replicas_and_one_leader") {
        return;
    }
    let place = Place::new("replicas").await.unwrap();
    let mut first = Operator::start(&place, true).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    let mut second = Operator::start(&place, true).unwrap();
    assert!(second.ask("/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(is_leader(&first).await && !is_leader(&second).await);

    first.kill().unwrap();
    let killed = Instant::now();
    place.end_pod("-pre", Ending::exit(10)).await.unwrap();
    reached(&place, Phase::Failed, "InvalidData").await;
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    assert!(is_leader(&second).await);

    // A leader that is told to stop gives the lease back.
    second.stop().unwrap();
    let stopped = Instant::now();
    let _third = Operator::start(&place, true).unwrap();
    place.apply(&format!("{WORKSPACE}  limits: {{retries: 1}}\n")).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
}

async fn is_leader(operator: &Operator) -> bool {
    let metrics = operator.ask("/metrics").await.unwrap();
    metrics.contains("leader_election_master_status{name=\"anneal-operator\"} 1")
}

/// Somebody else's hands on our Job and our status are put right; what is not ours stays.
#[tokio::test]
async fn a_conflicting_manager_is_put_right() {
    if !needs_control_plane("a_conflicting_manager_is_put_right") {
        return;
    }
    let place = Place::new("conflict").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.pod_of("-pre").await.unwrap();
    let name = place.job_name("-pre").await.unwrap();
    let params = PatchParams::apply("somebody").force();
    let theirs = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"labels": {"theirs": "yes"}}, "spec": {"suspend": true}});
    place.jobs.patch(&name, &params, &Patch::Apply(&theirs)).await.unwrap();
    let job = until(&place.jobs, &name, |job: Option<&Job>| {
        job.is_some_and(|job| {
            let fields = job.metadata.managed_fields.as_deref().unwrap_or_default();
            job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(false))
                && fields.iter().any(|one| one.manager.as_deref() == Some("somebody"))
        })
    })
    .await
    .unwrap();
    assert_eq!(job.unwrap().metadata.labels.unwrap()["theirs"], "yes");

    let status = json!({"status": {"phase": "Succeeded"}});
    let merge = Patch::Merge(&status);
    place.workspaces.patch_status("reviews", &PatchParams::default(), &merge).await.unwrap();
    // A status that claims success is believed only with the reason that goes with it.
    reached(&place, Phase::Preflight, "PreflightRunning").await;
}

/// Nothing is written while nothing changes.
#[tokio::test]
async fn nothing_is_written_at_rest() {
    if !needs_control_plane("nothing_is_written_at_rest") {
        return;
    }
    let place = Place::new("rest").await.unwrap();
    let operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;
    let metrics = operator.ask("/metrics").await.unwrap();
    assert!(metrics.contains("controller_runtime_reconcile_total"), "{metrics}");
    assert!(operator.ask("/healthz").await.unwrap().ends_with("ok"));
    // The pass that follows our own last write has been made once the passes stand still.
    let mut every = tokio::time::interval(Duration::from_secs(4));
    let mut before = u64::MAX;
    every.tick().await;
    for _ in 0..5 {
        let now = operator.writes().await.unwrap();
        if now == before {
            return;
        }
        before = now;
        every.tick().await;
    }
    unreachable!("the operator goes on writing:\n{}", operator.log().unwrap());
}

/// Deletion in the midst of a training leaves nothing.
#[tokio::test]
async fn deletion_leaves_nothing() {
    if !needs_control_plane("deletion_leaves_nothing") {
        return;
    }
    let place = Place::new("deletion").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    for ends_preflight in [false, true] {
        place.apply(WORKSPACE).await.unwrap();
        place.pod_of("-pre").await.unwrap();
        if ends_preflight {
            place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
            place.run_pod("-t0").await.unwrap();
        }
        place.workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
        gone(&place).await;
    }
}
