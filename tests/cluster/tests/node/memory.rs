//! Memory that does not suffice: the trainer's own word, and the kernel's.

use anyhow::{Context, Result, ensure};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::{
    Company, REGISTRY, Signal, Team, condition, long_examples, on_node, plain, push_data,
};

/// All examples at once, which takes hundreds of megabytes.
async fn large(team: &Team) -> Result<Value> {
    let image = format!("{REGISTRY}/data/large:1");
    push_data(&image, &plain(), &long_examples(64)).await?;
    let mut workspace = team.workspace();
    workspace["spec"]["data"]["train"]["image"] = json!(image);
    workspace["spec"]["hyperparameters"] = json!({
        "maxSteps": 2, "batchSize": 64, "microBatchTokens": 131_072, "maxSequenceLength": 2048,
        "learningRate": 0.01, "warmupSteps": 0,
    });
    workspace["spec"]["adapter"] = json!({"lora": {"dropout": 0.2}});
    Ok(workspace)
}

/// The next attempt takes half of the tokens at once, which leaves the losses as they are, with dropout too.
#[test]
fn a_trainer_out_of_memory_is_tried_again_with_half_the_micro_batch() {
    on_node("memory", Company::Any, async |team| {
        team.apply(&large(team).await?).await?;
        let undisturbed = losses(team, &team.succeeded().await?)?;
        ensure!(undisturbed.len() == 2, "{undisturbed:?}");
        team.delete().await?;

        team.apply(&large(team).await?).await?;
        let (_, trainer) = team.held().await?;
        trainer.send(Signal::CONT)?;
        trainer.event("\"event\":\"started\"").await?;
        trainer.limit_growth(96 << 20)?;
        let status = team.succeeded().await?;
        let attempts = status["attempts"].as_array().context("no attempts")?;
        ensure!(attempts.len() == 2 && attempts[0]["outcome"] == "OutOfMemory", "{status:#}");
        let halved = team.jobs.list(&ListParams::default()).await?.items.into_iter().any(|job| {
            job.metadata.name.is_some_and(|name| name.ends_with("-t1"))
                && format!("{:?}", job.spec).contains("ANNEAL_MICRO_BATCH_HALVINGS")
        });
        ensure!(halved, "{:?}", team.job_names().await?);
        let found = losses(team, &status)?;
        let is_close = |(loss, expected): (&f64, &f64)| (loss - expected).abs() < 1e-4 * expected;
        let are_same = found.len() == 2 && found.iter().zip(&undisturbed).all(is_close);
        ensure!(are_same, "{found:?}, and without the halving {undisturbed:?}");
        team.delete().await
    });
}

/// Those of the last attempt.
fn losses(team: &Team, status: &Value) -> Result<Vec<f64>> {
    let last = status["attempts"].as_array().and_then(|all| all.last()?["pod"].as_str());
    team.losses(last.context("no attempt")?)
}

/// A limit below what LibTorch itself takes.
#[test]
fn a_container_that_the_kernel_kills_for_its_memory_is_told() {
    on_node("oom-killed", Company::Any, async |team| {
        let mut workspace = team.workspace();
        workspace["spec"]["compute"] = json!({"memory": "40Mi"});
        team.apply(&workspace).await?;
        let status = team.reached("Failed", "OutOfMemory").await?;
        let message = condition(&status, "Failed")["message"].to_string();
        ensure!(message.contains("more memory than its limit"), "{message}");
        ensure!(message.contains("raise compute.memory"), "{message}");
        team.delete().await
    });
}
