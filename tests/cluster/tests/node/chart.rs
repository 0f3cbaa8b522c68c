//! The chart on a real cluster: upgraded and removed while a training runs, which neither ends.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::support::{Company, Signal, Team, on_node, run};

/// Everything that a release makes, wherever it is.
const KINDS: &str = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,\
                     clusterrolebindings,poddisruptionbudgets,networkpolicies";

#[test]
fn a_training_goes_on_while_the_chart_is_upgraded_and_removed() {
    on_node("chart", Company::None, async |team| {
        team.apply(&team.workspace()).await?;
        let (pod, trainer) = team.held().await?;

        let before = operator(team).await?;
        team.node.install(&["--set", "resources.limits.memory=192Mi"])?;
        ensure!(operator(team).await? != before, "the upgrade changed nothing");
        let same = team.training_pod(&[]).await?;
        ensure!(same.metadata.uid == pod.metadata.uid, "the upgrade ended the training");

        run(&mut team.node.helm(&[
            "uninstall",
            "anneal",
            "--namespace",
            "anneal-system",
            "--wait",
        ]))?;
        let label = "-l app.kubernetes.io/instance=anneal -o name";
        let left = team.node.kubectl(&format!("get {KINDS} -A {label}"))?;
        ensure!(left.is_empty(), "these are left: {left}");
        team.node.kubectl("get crd finetuneworkspaces.anneal.dev")?;
        let same = team.training_pod(&[]).await?;
        ensure!(same.metadata.uid == pod.metadata.uid, "the removal ended the training");

        team.node.install(&[])?;
        trainer.send(Signal::CONT)?;
        let status = team.succeeded().await?;
        ensure!(status["attempts"].as_array().is_some_and(|all| all.len() == 1), "{status:#}");
        team.delete().await
    });
}

/// The operator's pod, and not one that is about to end.
async fn operator(team: &Team) -> Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(team.client.clone(), "anneal-system");
    let mut pods = pods.list(&ListParams::default()).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    ensure!(pods.len() == 1, "{} operators run", pods.len());
    Ok(pods.remove(0).metadata.uid)
}
