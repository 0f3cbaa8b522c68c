//! Model and data that are wrong or missing.

use anyhow::{Result, ensure};
use kube::api::ListParams;
use serde_json::json;

use crate::support::{Company, REGISTRY, Team, colors, condition, on_node, plain, push_data};

#[test]
fn a_bad_line_is_named_and_never_tried_again() {
    on_node("bad-line", Company::Any, async |team| {
        let image = format!("{REGISTRY}/data/bad-line:1");
        let good = r#"{"prompt": "a", "completion": "b"}"#;
        push_data(&image, &plain(), &format!("{good}\n{good}\n{{\"prompt\": \n")).await?;
        let mut workspace = team.workspace();
        workspace["spec"]["data"]["train"]["image"] = json!(image);
        team.apply(&workspace).await?;
        let status = team.reached("Failed", "InvalidData").await?;
        let message = condition(&status, "Failed")["message"].to_string();
        ensure!(message.contains("train.jsonl:3: "), "{message}");
        ensure!(condition(&status, "Stalled")["status"] == "True", "{status:#}");
        only_preflight(team).await?;
        team.delete().await
    });
}

#[test]
fn an_image_that_is_no_model_is_told() {
    on_node("no-model", Company::Any, async |team| {
        let mut workspace = team.workspace();
        workspace["spec"]["baseModel"]["image"] = json!(format!("{REGISTRY}/data/colors:1"));
        team.apply(&workspace).await?;
        let status = team.reached("Failed", "InvalidData").await?;
        let message = condition(&status, "Failed")["message"].to_string();
        ensure!(message.contains("/mnt/base-model") && message.contains("; next: "), "{message}");
        only_preflight(team).await?;
        team.delete().await
    });
}

/// The registry's words are in the status, and the run goes on when the image comes.
#[test]
fn an_image_that_is_missing_is_waited_for() {
    on_node("missing-image", Company::Any, async |team| {
        let image = format!("{REGISTRY}/data/late:1");
        let mut workspace = team.workspace();
        workspace["spec"]["data"]["train"]["image"] = json!(image);
        team.apply(&workspace).await?;
        let status = team.reached("Preflight", "ImagePullFailed").await?;
        let message = condition(&status, "Ready")["message"].to_string();
        ensure!(message.contains("data/late:1") && message.contains("not found"), "{message}");
        ensure!(condition(&status, "Reconciling")["status"] == "True", "{status:#}");
        push_data(&image, &plain(), &colors()).await?;
        team.succeeded().await?;
        team.delete().await
    });
}

/// One Job of one pod, which was not tried again.
async fn only_preflight(team: &Team) -> Result<()> {
    let jobs = team.jobs.list(&ListParams::default()).await?.items;
    ensure!(jobs.len() == 1, "{:?}", team.job_names().await?);
    let failed = jobs[0].status.as_ref().and_then(|status| status.failed);
    ensure!(failed == Some(1), "it was tried {failed:?} times");
    Ok(())
}
