//! What holds a run up or ends it by the spec's own words, and its deletion.

use anyhow::ensure;
use serde_json::json;

use crate::support::{Company, condition, on_node};

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
        team.training_pod_after(5).await?;
        team.delete().await
    });
}
