//! `spec.limits`: deadline, retries, stall, and how long ended pods are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::condition::{FAILED, READY};
use api::termination::Stage;
use api::workspace::{Phase, Progress};
use api::{Termination, TrainerStatus};
use k8s_openapi::api::batch::v1::Job;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Ending, Operator, Place, WORKSPACE, until};

use crate::support::{condition, events, reached, trainer};

fn with(limits: &str) -> String {
    format!("{WORKSPACE}  limits: {{{limits}}}\n")
}

async fn training(name: &str, limits: &str) -> (Place, Operator) {
    let place = Place::new(name).await.unwrap();
    let operator = Operator::start(&place, false).unwrap();
    place.apply(&with(limits)).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    (place, operator)
}

/// The deadline ends the run; before it, it may be moved while the training runs.
#[tokio::test]
async fn a_deadline_may_be_moved_and_ends_the_run() {
    if !needs_control_plane("a_deadline_may_be_moved_and_ends_the_run") {
        return;
    }
    let (place, _operator) = training("deadline", "deadline: 2h").await;
    place.run_pod("-t0").await.unwrap();
    reached(&place, Phase::Training, "Training").await;
    let job = place.job_name("-t0").await.unwrap();
    assert_eq!(deadline(&place.jobs.get(&job).await.unwrap()), Some(7200));
    place.apply(&with("retries: 2")).await.unwrap();
    until(&place.jobs, &job, |job: Option<&Job>| job.is_some_and(|job| deadline(job).is_none()))
        .await
        .unwrap();
    place.apply(&with("deadline: 1s")).await.unwrap();
    let status = reached(&place, Phase::Failed, "DeadlineExceeded").await;
    let (failed, _, message) = condition(&status, FAILED);
    assert_eq!(failed, "True");
    assert!(message.contains("longer than `limits.deadline`"), "{message}");
    assert_eq!(status.attempts.len(), 1);
    assert_eq!(status.attempts[0].outcome, "DeadlineExceeded");
}

fn deadline(job: &Job) -> Option<i64> {
    job.spec.as_ref()?.active_deadline_seconds
}

/// Failures that may pass are tried again as often as the limit says.
#[tokio::test]
async fn retries_are_counted() {
    if !needs_control_plane("retries_are_counted") {
        return;
    }
    let (place, _operator) = training("retries", "retries: 1").await;
    place.end_pod("-t0", Ending::exit(13)).await.unwrap();
    let job = place.job_name("-t0").await.unwrap();
    until(&place.jobs, &job, |job: Option<&Job>| {
        let status = job.and_then(|job| job.status.as_ref());
        status.is_some_and(|status| status.failed == Some(1) && status.active == Some(1))
    })
    .await
    .unwrap();
    place.end_pod("-t0", Ending::exit(13)).await.unwrap();
    let status = reached(&place, Phase::Failed, "InputOutputFailed").await;
    assert_eq!(status.attempts.len(), 2, "{:?}", status.attempts);
}

/// Ended Jobs are cleared away, and the workspace goes on telling how it ended.
#[tokio::test]
async fn ended_jobs_are_cleared_away_and_the_status_stays() {
    if !needs_control_plane("ended_jobs_are_cleared_away_and_the_status_stays") {
        return;
    }
    let (place, mut operator) = training("ttl", "ttlAfterFinished: 1s").await;
    let jobs = [place.job_name("-pre").await.unwrap(), place.job_name("-t0").await.unwrap()];
    // A Job begins suspended: the operator has to live until it lets it go.
    place.pod_of("-t0").await.unwrap();
    // An end that nobody saw is not cleared away, however long ago it was.
    operator.kill().unwrap();
    place.end_pod("-t0", Ending::exit(10)).await.unwrap();
    until(&place.jobs, &jobs[1], |job: Option<&Job>| {
        job.and_then(|job| job.status.as_ref()?.failed) == Some(1)
    })
    .await
    .unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    reached(&place, Phase::Failed, "InvalidData").await;
    for job in &jobs {
        until(&place.jobs, job, |job: Option<&Job>| job.is_none()).await.unwrap();
    }
    let status = reached(&place, Phase::Failed, "InvalidData").await;
    assert_eq!(status.attempts.len(), 1);
}

/// A trainer that answers and does nothing is ended and tried again, and the status says so.
#[tokio::test]
async fn a_trainer_that_stalls_is_ended_and_tried_again() {
    if !needs_control_plane("a_trainer_that_stalls_is_ended_and_tried_again") {
        return;
    }
    let idle = Arc::new(AtomicU64::new(0));
    let address = "127.9.8.7";
    trainer(address, {
        let idle = Arc::clone(&idle);
        move || TrainerStatus {
            stage: Stage::Training,
            progress: Some(Progress {
                summary: "12/40".to_owned(),
                step: 12,
                total_steps: 40,
                ..Progress::default()
            }),
            idle_seconds: Some(idle.load(Ordering::SeqCst)),
            ..TrainerStatus::default()
        }
    })
    .await;
    let (place, _operator) = training("stall", "stall: 20m, retries: 1").await;
    place.run_pod_at("-t0", address).await.unwrap();
    let status = reached(&place, Phase::Training, "Training").await;
    assert_eq!(status.progress.unwrap().summary, "12/40");
    idle.store(1201, Ordering::SeqCst);
    reached(&place, Phase::Training, "TrainerStalled").await;
    let first = place.job_name("-t0").await.unwrap();
    place.job_name("-t1").await.unwrap();
    let ended = place.jobs.get(&first).await.unwrap().status.unwrap();
    assert!(ended.conditions.unwrap().iter().any(|one| one.type_ == "Failed"));
    let status = reached(&place, Phase::Provisioning, "Starting").await;
    assert_eq!(status.attempts[0].outcome, "TrainerStalled", "{:?}", status.attempts);
    let told = events(&place).await;
    let stalled = told.iter().find(|event| event.reason == "TrainerStalled").unwrap();
    assert_eq!(stalled.type_, "Warning");
    assert!(stalled.note.contains("no sign of work for 20m"), "{stalled:?}");

    place.run_pod_at("-t1", address).await.unwrap();
    let status = reached(&place, Phase::Failed, "TrainerStalled").await;
    assert!(condition(&status, READY).2.contains("limits.stall"), "{status:?}");
}
