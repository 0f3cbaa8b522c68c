//! Somebody else's hands on what is ours: put right once, told, and never fought over.

use std::time::Duration;

use api::condition::READY;
use api::workspace::Phase;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Operator, Place, WORKSPACE, until};

use crate::support::{condition, events, reached};

/// A field of our Job and our status that somebody has set are put right; what is not ours stays.
#[tokio::test]
async fn a_slip_of_the_hand_is_put_right_and_told() {
    if !needs_control_plane("a_slip_of_the_hand_is_put_right_and_told") {
        return;
    }
    let place = Place::new("slip").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.pod_of("-pre").await.unwrap();
    let name = place.job_name("-pre").await.unwrap();
    suspend(&place, &name, true).await;
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
    told(&place, ".spec.suspend of Job").await;
}

/// A status that claims success is put right: it is believed only with the adapter that goes with it.
#[tokio::test]
async fn somebody_elses_word_in_our_status_is_put_right_and_told() {
    if !needs_control_plane("somebody_elses_word_in_our_status_is_put_right_and_told") {
        return;
    }
    let place = Place::new("word").await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    let merge = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    place.workspaces.patch_status("reviews", &PatchParams::default(), &merge).await.unwrap();
    reached(&place, Phase::Preflight, "PreflightRunning").await;
    told(&place, ".status.phase of FineTuneWorkspace").await;
}

/// A program that sets our field whenever we set it back: the status says who it is, and the operator
/// writes now and then, and not in turns with it.
#[tokio::test]
async fn a_program_that_fights_for_a_field_is_told_and_not_fought() {
    if !needs_control_plane("a_program_that_fights_for_a_field_is_told_and_not_fought") {
        return;
    }
    let place = Place::new("fight").await.unwrap();
    let operator = Operator::start(&place, false).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.pod_of("-pre").await.unwrap();
    let name = place.job_name("-pre").await.unwrap();
    let fighter = tokio::spawn({
        let (jobs, name) = (place.jobs.clone(), name.clone());
        async move {
            loop {
                let is_let_go = |job: Option<&Job>| {
                    job.and_then(|job| job.spec.as_ref()?.suspend) == Some(false)
                };
                until(&jobs, &name, is_let_go).await.unwrap();
                let params = PatchParams::apply("fighter").force();
                let theirs =
                    json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": true}});
                jobs.patch(&name, &params, &Patch::Apply(&theirs)).await.unwrap();
            }
        }
    });
    let status = reached(&place, Phase::Preflight, "FieldConflict").await;
    let (ready, _, message) = condition(&status, READY);
    assert_eq!(ready, "False");
    let expected = format!("`fighter` sets .spec.suspend of Job `{name}`; next: ");
    assert!(message.starts_with(&expected), "{message}");

    let before = operator.writes().await.unwrap();
    let mut every = tokio::time::interval(Duration::from_secs(8));
    every.tick().await;
    every.tick().await;
    let writes = operator.writes().await.unwrap() - before;
    assert!(writes <= 6, "{writes} writes in 8 s of a fight");
    fighter.abort();
    // It gives up, and the operator sets the field back.
    reached(&place, Phase::Preflight, "PreflightRunning").await;
}

async fn suspend(place: &Place, job: &str, suspend: bool) {
    let params = PatchParams::apply("somebody").force();
    let theirs = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"labels": {"theirs": "yes"}}, "spec": {"suspend": suspend}});
    place.jobs.patch(job, &params, &Patch::Apply(&theirs)).await.unwrap();
}

/// Waits for the event that says what was put back.
async fn told(place: &Place, what: &str) {
    let mut every = tokio::time::interval(Duration::from_millis(200));
    for _ in 0..100 {
        every.tick().await;
        let told = events(place).await;
        let conflict = told.iter().find(|event| event.reason == "FieldConflict");
        if let Some(event) = conflict {
            assert!(event.note.contains(what), "{event:?}");
            assert_eq!(event.type_, "Warning");
            return;
        }
    }
    unreachable!("no event tells of {what}: {:?}", events(place).await);
}
