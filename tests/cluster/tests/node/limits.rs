//! What holds a run up or ends it by the spec's own words, and its deletion.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::{
    Company, REGISTRY, Signal, condition, long_examples, on_node, plain, push_data,
};

/// Steps that nobody waits for.
const ENDLESS: u64 = 10_000_000;

#[test]
fn a_pod_that_no_node_takes_has_the_schedulers_reason() {
    on_node("unschedulable", Company::Any, async |team| {
        let mut workspace = team.workspace();
        workspace["spec"]["compute"] = json!({"gpus": 1});
        team.apply(&workspace).await?;
        let status = team.reached("Provisioning", "Unschedulable").await?;
        let message = condition(&status, "Ready")["message"].to_string();
        ensure!(message.contains("Insufficient nvidia.com/gpu"), "{message}");
        ensure!(message.contains("; next: add a node"), "{message}");
        ensure!(condition(&status, "Stalled")["status"] == "False", "{status:#}");

        workspace["spec"]["compute"] = json!({"nodeSelector": {"kubernetes.io/hostname": "node1"}});
        team.apply(&workspace).await?;
        team.delete().await
    });
}

#[test]
fn a_deadline_that_passes_ends_the_pod() {
    on_node("deadline", Company::Any, async |team| {
        let mut workspace = team.workspace();
        workspace["spec"]["hyperparameters"]["maxSteps"] = json!(ENDLESS);
        workspace["spec"]["limits"] = json!({"deadline": "15s"});
        team.apply(&workspace).await?;
        let status = team.reached("Failed", "DeadlineExceeded").await?;
        let message = condition(&status, "Failed")["message"].to_string();
        ensure!(message.contains("limits.deadline"), "{message}");
        team.delete().await
    });
}

#[test]
fn deletion_while_it_trains_leaves_nothing() {
    on_node("deleted", Company::Any, async |team| {
        let mut workspace = team.workspace();
        workspace["spec"]["hyperparameters"]["maxSteps"] = json!(ENDLESS);
        team.apply(&workspace).await?;
        let (_, trainer) = team.held().await?;
        trainer.send(Signal::CONT)?;
        trainer.event("\"event\":\"step\",\"step\":5,").await?;
        let steps = |status: &Value| status["progress"]["step"].as_u64() >= Some(5);
        team.when("its progress", steps).await?;
        team.delete().await
    });
}

/// One step takes longer than the spec lets pass without a sign of work.
#[test]
fn a_trainer_that_shows_no_sign_of_work_is_ended() {
    on_node("stalled", Company::Any, async |team| {
        let image = format!("{REGISTRY}/data/huge:1");
        push_data(&image, &plain(), &long_examples(1024)).await?;
        let mut workspace = team.workspace();
        workspace["spec"]["data"]["train"]["image"] = json!(image);
        workspace["spec"]["hyperparameters"] =
            json!({"maxSteps": 100, "batchSize": 1024, "maxSequenceLength": 2048});
        workspace["spec"]["limits"] = json!({"stall": "1s", "retries": 0});
        team.apply(&workspace).await?;
        let status = team.reached("Failed", "TrainerStalled").await?;
        let message = condition(&status, "Failed")["message"].to_string();
        ensure!(message.contains("no sign of work for 1s"), "{message}");
        let runs = |pod: &Pod| {
            pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let pods = team.pods.list(&ListParams::default()).await?.items;
        ensure!(!pods.iter().any(runs), "a pod runs on");
        team.delete().await
    });
}
