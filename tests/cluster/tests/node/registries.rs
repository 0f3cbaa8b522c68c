//! Registries that are down when they are needed, and back a little later.

use anyhow::ensure;
use serde_json::json;
use testkit::registry::Registry;

use crate::support::{Company, Signal, colors, condition, on_node, plain, push_data};

#[test]
fn a_registry_that_is_down_at_the_pull_is_waited_for() {
    on_node("down-at-pull", Company::Any, async |team| {
        let mut registry = Registry::open_at("10.99.0.1", 5002)?;
        let image = format!("{}/data/here:1", registry.host());
        push_data(&image, &plain(), &(colors() + &colors())).await?;
        registry.stop()?;
        let mut workspace = team.workspace();
        workspace["spec"]["data"]["train"]["image"] = json!(image);
        team.apply(&workspace).await?;
        let status = team.reached("Preflight", "ImagePullFailed").await?;
        let message = condition(&status, "Ready")["message"].to_string();
        ensure!(message.contains("connection refused"), "{message}");
        registry.start()?;
        team.succeeded().await?;
        team.delete().await
    });
}

/// The training is done and must not be lost: the push is tried again until the registry is back.
#[test]
fn a_registry_that_is_down_at_the_push_loses_nothing() {
    on_node("down-at-push", Company::Any, async |team| {
        let mut registry = Registry::open_at("10.99.0.1", 5003)?;
        let mut workspace = team.workspace();
        workspace["spec"]["output"]["image"] = json!(format!("{}/team/tune", registry.host()));
        team.apply(&workspace).await?;
        let (_, trainer) = team.held().await?;
        registry.stop()?;
        trainer.send(Signal::CONT)?;
        let gave_up = |status: &serde_json::Value| {
            let attempts = status["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
            attempts.iter().any(|attempt| attempt["outcome"] == "InputOutputFailed")
        };
        let status = team.when("an attempt that gave up", gave_up).await?;
        ensure!(status["phase"] != "Failed", "{status:#}");
        registry.start()?;
        team.succeeded().await?;
        team.delete().await
    });
}

/// The adapter is there and cannot be asked for: that is told, and nothing is trained anew.
#[test]
fn a_registry_that_goes_after_the_push_is_asked_again() {
    on_node("down-at-the-end", Company::None, async |team| {
        let mut registry = Registry::open_at("10.99.0.1", 5004)?;
        let mut workspace = team.workspace();
        workspace["spec"]["output"]["image"] = json!(format!("{}/team/tune", registry.host()));
        team.apply(&workspace).await?;
        // The operator is away while the pod ends and the registry goes.
        let (_, trainer) = team.held().await?;
        team.node.kubectl("scale -n anneal-system deployment/anneal-operator --replicas=0")?;
        team.node.kubectl(
            "wait -n anneal-system pods -l app.kubernetes.io/name=anneal-operator --for=delete \
             --timeout=120s",
        )?;
        trainer.send(Signal::CONT)?;
        let pod =
            "-l anneal.dev/role=train --for=jsonpath={.status.phase}=Succeeded --timeout=120s";
        team.node.kubectl(&format!("wait -n down-at-the-end pods {pod}"))?;
        registry.stop()?;
        team.node.kubectl("scale -n anneal-system deployment/anneal-operator --replicas=1")?;
        let status = team.reached("Publishing", "RegistryUnreachable").await?;
        let message = condition(&status, "Ready")["message"].to_string();
        ensure!(message.contains("refused") && message.contains("asks again"), "{message}");
        registry.start()?;
        let status = team.succeeded().await?;
        ensure!(status["attempts"].as_array().is_some_and(|all| all.len() == 1), "{status:#}");
        team.delete().await
    });
}
