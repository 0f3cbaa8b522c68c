//! The operator itself: restarts, two replicas, rest, deletion at any time.

use std::time::{Duration, Instant};

use api::termination::Stage;
use api::workspace::Phase;
use api::{Termination, TrainerStatus};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Ending, Operator, Place, WORKSPACE};

use crate::life::gone;
use crate::support::{reached, trainer};

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
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while !second.ask("/readyz").await.unwrap().starts_with("HTTP/1.1 200") {
        every.tick().await;
    }
    assert!(is_leader(&first).await && !is_leader(&second).await);

    first.kill().unwrap();
    let killed = Instant::now();
    place.end_pod("-pre", Ending::exit(10)).await.unwrap();
    reached(&place, Phase::Failed, "InvalidData").await;
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    assert!(is_leader(&second).await);

    // A leader that is told to stop gives the lease back.
    second.stop().unwrap();
    let leases: Api<Lease> = Api::namespaced(place.client.clone(), "anneal-system");
    let lease = leases.get("anneal-operator").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.unwrap_or_default(), "");
    let stopped = Instant::now();
    let _third = Operator::start(&place, true).unwrap();
    place.apply(&format!("{WORKSPACE}  limits: {{retries: 1}}\n")).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
}

async fn is_leader(operator: &Operator) -> bool {
    let metrics = operator.ask("/metrics").await.unwrap();
    metrics.contains("leader_election_master_status{name=\"anneal-operator\"} 1")
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

/// Deletion in any phase leaves nothing, whether the operator is there or not.
#[tokio::test]
async fn deletion_leaves_nothing_in_any_phase() {
    if !needs_control_plane("deletion_leaves_nothing_in_any_phase") {
        return;
    }
    let place = Place::new("deletion").await.unwrap();
    let mut operator = Operator::start(&place, false).unwrap();
    let stage = Stage::Evaluating;
    trainer(EVALUATING, move || TrainerStatus { stage, ..TrainerStatus::default() }).await;
    let phases = [
        (Phase::Rejected, "InvalidSecret"),
        (Phase::Suspended, "SuspendedByUser"),
        (Phase::Preflight, "PreflightRunning"),
        (Phase::Queued, "AwaitingAdmission"),
        (Phase::Provisioning, "Starting"),
        (Phase::Training, "Training"),
        (Phase::Evaluating, "Evaluating"),
        (Phase::Publishing, "RegistryUnreachable"),
        (Phase::Failed, "InvalidData"),
    ];
    for (phase, reason) in phases {
        come_to(&place, phase).await;
        reached(&place, phase, reason).await;
        // Half of them without an operator: the cluster itself clears away.
        let is_there = matches!(phase, Phase::Suspended | Phase::Queued | Phase::Training);
        if !is_there {
            operator.kill().unwrap();
        }
        place.workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
        gone(&place).await;
        if !is_there {
            operator = Operator::start(&place, false).unwrap();
        }
    }
    let log = operator.log().unwrap();
    assert!(!log.contains("will be tried again"), "{log}");
}

/// Address of a trainer that evaluates.
const EVALUATING: &str = "127.9.8.6";

/// Makes a workspace, and brings it to a phase.
async fn come_to(place: &Place, phase: Phase) {
    let workspace = match phase {
        Phase::Rejected => WORKSPACE.replace("team/reviews}", "team/reviews, pushSecret: none}"),
        Phase::Suspended => format!("{WORKSPACE}  suspend: true\n"),
        Phase::Queued => format!("{WORKSPACE}  compute: {{queueName: team}}\n"),
        Phase::Publishing => WORKSPACE.replace("registry.example.com/team", "127.0.0.1:9/team"),
        _ => WORKSPACE.to_owned(),
    };
    place.apply(&workspace).await.unwrap();
    if matches!(phase, Phase::Rejected | Phase::Suspended | Phase::Preflight) {
        return;
    }
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    if matches!(phase, Phase::Queued | Phase::Provisioning) {
        return;
    }
    if phase == Phase::Evaluating {
        place.run_pod_at("-t0", EVALUATING).await.unwrap();
        return;
    }
    place.run_pod("-t0").await.unwrap();
    let adapter = api::workspace::AdapterStatus {
        image: "127.0.0.1:9/team/reviews:x".to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        size: None,
    };
    let report = Termination { adapter: Some(adapter), ..Termination::default() };
    match phase {
        Phase::Publishing => place.end_pod("-t0", Ending::well(report)).await.unwrap(),
        Phase::Failed => place.end_pod("-t0", Ending::exit(10)).await.unwrap(),
        _ => {}
    }
}
