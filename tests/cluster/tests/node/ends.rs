//! Pods that are ended from outside: by the eviction API, by a drain, by a signal.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use serde_json::{Value, json};

use crate::support::{
    Company, Process, REGISTRY, Signal, Team, long_examples, on_node, plain, push_data, run,
};

/// A run that takes some seconds, with checkpoints in the registry.
async fn slow(team: &Team) -> Result<Value> {
    let image = format!("{REGISTRY}/data/long:1");
    push_data(&image, &plain(), &long_examples(32)).await?;
    let mut workspace = team.workspace();
    workspace["spec"]["data"]["train"]["image"] = json!(image);
    workspace["spec"]["hyperparameters"] =
        json!({"maxSteps": 100, "batchSize": 4, "maxSequenceLength": 2048});
    workspace["spec"]["checkpoints"] = json!({"everySteps": 5, "every": "1s"});
    Ok(workspace)
}

/// The pod of a run that has taken some steps.
async fn in_the_midst(team: &Team) -> Result<(Pod, Process)> {
    let (pod, trainer) = team.held().await?;
    trainer.send(Signal::CONT)?;
    trainer.event("\"event\":\"step\",\"step\":10,").await?;
    Ok((pod, trainer))
}

#[test]
fn an_evicted_pod_is_followed_by_another() {
    on_node("evicted", Company::Any, async |team| {
        team.apply(&slow(team).await?).await?;
        let (pod, _) = in_the_midst(team).await?;
        let name = pod.metadata.name.as_deref().context("no name")?;
        team.pods.evict(name, &EvictParams::default()).await?;
        let next = team.training_pod(&[&pod]).await?;
        ensure!(owner(&next) == owner(&pod), "an eviction is not the Job's fault");
        let status = team.succeeded().await?;
        ensure!(status["attempts"].as_array().is_some_and(|all| all.len() == 2), "{status:#}");
        ensure!(status["attempts"][1]["resumedFrom"].as_u64() >= Some(10), "{status:#}");
        team.delete().await
    });
}

/// The operator is evicted as well.
#[test]
fn a_drained_node_delays_the_run_and_no_more() {
    on_node("drained", Company::None, async |team| {
        team.apply(&slow(team).await?).await?;
        let (pod, _) = in_the_midst(team).await?;
        team.node
            .kubectl("drain node1 --ignore-daemonsets --delete-emptydir-data --timeout=150s")?;
        team.node.kubectl("uncordon node1")?;
        let next = team.training_pod(&[&pod]).await?;
        ensure!(owner(&next) == owner(&pod), "a drain is not the Job's fault");
        team.succeeded().await?;
        team.delete().await
    });
}

/// The next attempt goes on from the checkpoint in the registry.
#[test]
fn a_killed_trainer_goes_on_and_makes_the_adapter_of_an_undisturbed_run() {
    on_node("killed", Company::Any, async |team| {
        team.apply(&slow(team).await?).await?;
        let undisturbed = team.succeeded().await?["adapter"]["digest"].clone();
        team.delete().await?;

        team.apply(&slow(team).await?).await?;
        let (pod, trainer) = in_the_midst(team).await?;
        checkpoint_in_registry(team).await?;
        trainer.send(Signal::KILL)?;
        team.training_pod(&[&pod]).await?;
        let status = team.succeeded().await?;
        ensure!(status["adapter"]["digest"] == undisturbed, "not {undisturbed}: {status:#}");
        let attempts = status["attempts"].as_array().context("no attempts")?;
        ensure!(attempts.len() == 2 && attempts[0]["outcome"] == "Interrupted", "{status:#}");
        ensure!(attempts[1]["resumedFrom"].is_u64(), "it began anew: {status:#}");
        team.delete().await
    });
}

/// It does not even say that it hangs: the kubelet finds out, and the run goes on from its checkpoint.
#[test]
fn a_trainer_that_answers_nothing_is_killed_and_the_run_goes_on() {
    on_node("hung", Company::Any, async |team| {
        let mut workspace = slow(team).await?;
        workspace["spec"]["hyperparameters"]["maxSteps"] = json!(1_000_000);
        workspace["spec"]["limits"] = json!({"stall": "20s"});
        team.apply(&workspace).await?;
        let (pod, trainer) = in_the_midst(team).await?;
        let has_checkpoint =
            |status: &Value| status["checkpoints"].as_array().is_some_and(|all| all.len() == 1);
        let told = team.when("a checkpoint", has_checkpoint).await?;
        ensure!(told["checkpoints"][0]["step"].is_u64(), "{told:#}");
        trainer.send(Signal::STOP)?;
        team.training_pod(&[&pod]).await?;
        let goes_on = |status: &Value| status["attempts"][1]["resumedFrom"].is_u64();
        let status = team.when("a second attempt that goes on", goes_on).await?;
        ensure!(status["attempts"][0]["outcome"] == "TrainerStalled", "{status:#}");
        let message = status["attempts"][0]["message"].to_string();
        ensure!(message.contains("did not answer any more"), "{message}");
        team.delete().await
    });
}

/// Waits until the output's repository has a tag for the checkpoint.
async fn checkpoint_in_registry(team: &Team) -> Result<()> {
    let list = format!("http://{REGISTRY}/v2/{}/tune/tags/list", team.name);
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..2400 {
        every.tick().await;
        let told = run(Command::new("curl").args(["-s", &list]))?;
        if told.contains("-checkpoint\"") {
            return Ok(());
        }
    }
    anyhow::bail!("no checkpoint came into the registry")
}

fn owner(pod: &Pod) -> Option<&str> {
    pod.metadata.owner_references.as_ref()?.first().map(|owner| owner.name.as_str())
}
