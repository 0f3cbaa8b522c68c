//! Pods that are ended from outside: by the eviction API, by a drain, by a signal, by standing still.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use serde_json::{Value, json};

use crate::support::{Company, Process, Signal, Team, condition, on_node};

/// A run that takes some seconds, with checkpoints in the registry.
fn slow(team: &Team) -> Value {
    let mut workspace = team.workspace();
    workspace["spec"]["hyperparameters"]["maxSteps"] = json!(400);
    workspace["spec"]["checkpoints"] = json!({"everySteps": 20});
    workspace
}

/// The adapter of a run that nobody disturbs.
async fn undisturbed(team: &Team) -> Result<Value> {
    let status = team.succeeded().await?;
    Ok(status["adapter"]["digest"].clone())
}

#[test]
fn an_evicted_pod_is_followed_by_another() {
    on_node("evicted", Company::Any, async |team| {
        team.apply(&slow(team)).await?;
        let pod = team.training_pod_after(20).await?;
        let name = pod.metadata.name.as_deref().context("no name")?;
        team.pods.evict(name, &EvictParams::default()).await?;
        let next = team.training_pod(&[&pod]).await?;
        ensure!(owner(&next) == owner(&pod), "an eviction is not the Job's fault");
        let status = team.succeeded().await?;
        ensure!(status["attempts"].as_array().is_some_and(|all| all.len() == 2), "{status:#}");
        team.delete().await
    });
}

#[test]
fn a_drained_node_delays_the_run_and_is_told() {
    on_node("drained", Company::None, async |team| {
        team.apply(&slow(team)).await?;
        let pod = team.training_pod_after(20).await?;
        team.node
            .kubectl("drain node1 --ignore-daemonsets --delete-emptydir-data --timeout=120s")?;
        // The operator was evicted as well: nothing is told before it is back.
        team.node.kubectl("uncordon node1")?;
        let next = team.training_pod(&[&pod]).await?;
        ensure!(owner(&next) == owner(&pod), "a drain is not the Job's fault");
        team.succeeded().await?;
        team.delete().await
    });
}

#[test]
fn a_killed_trainer_is_started_again_and_makes_the_same_adapter() {
    on_node("killed", Company::Any, async |team| {
        team.apply(&slow(team)).await?;
        let expected = undisturbed(team).await?;
        team.delete().await?;

        team.apply(&slow(team)).await?;
        let pod = team.training_pod_after(40).await?;
        Process::of(&pod)?.send(Signal::KILL)?;
        let status = team.succeeded().await?;
        ensure!(
            status["adapter"]["digest"] == expected,
            "another adapter than {expected}: {status:#}"
        );
        let attempts = status["attempts"].as_array().context("no attempts")?;
        ensure!(attempts.len() == 2 && attempts[0]["outcome"] == "Interrupted", "{status:#}");
        team.delete().await
    });
}

/// The kubelet finds out that it does not answer.
#[test]
fn a_trainer_that_stands_still_is_killed_and_started_again() {
    on_node("still", Company::Any, async |team| {
        team.apply(&slow(team)).await?;
        let pod = team.training_pod_after(20).await?;
        Process::of(&pod)?.send(Signal::STOP)?;
        team.training_pod(&[&pod]).await?;
        let status = team.succeeded().await?;
        ensure!(condition(&status, "Complete")["status"] == "True", "{status:#}");
        team.delete().await
    });
}

fn owner(pod: &Pod) -> Option<&str> {
    pod.metadata.owner_references.as_ref()?.first().map(|owner| owner.name.as_str())
}
