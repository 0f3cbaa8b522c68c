//! A model server with the engine vLLM on the real node. Its pod is what the operator makes of it, under the
//! `restricted` level and a read-only root; in vLLM's place is a program that speaks as it does.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::support::{Company, REGISTRY, Team, VLLM, builds, condition, on_node, run, until};

const NAME: &str = "fast";

#[test]
fn vllm_is_given_what_a_workspace_publishes() {
    on_node("vllm", Company::Any, async |team| {
        let images = builds().join("images");
        let stand_in = builds().join("vllm");
        let image = format!("{VLLM}:test");
        run(Command::new(images).arg("one").arg(stand_in).args([&image, "--plain-http"]))?;
        team.apply(&team.workspace()).await?;
        let status = team.succeeded().await?;
        let digest = status["adapter"]["digest"].as_str().context("no digest")?.to_owned();

        let servers = servers(team);
        apply(&servers, json!([{"name": "tuned", "workspace": "tune"}])).await?;
        let status = ready(&servers, "1/1").await?;
        ensure!(status["adapters"][0]["digest"] == digest, "{status:#}");
        let pod = pod(team).await?;
        let digits = digest.trim_start_matches("sha256:").get(..12).context("a short digest")?;
        let answer = ask(&pod, "tuned")?;
        ensure!(answer["model"] == format!("tuned@{digits}"), "{answer}");
        ensure!(ask(&pod, NAME)?["model"] == NAME, "the base model does not answer");

        apply(&servers, json!([])).await?;
        ready(&servers, "0/0").await?;
        let answer = ask(&pod, "tuned")?;
        ensure!(answer["error"]["code"] == "model_not_found", "{answer}");
        let after = self::pod(team).await?;
        ensure!(after.metadata.uid == pod.metadata.uid, "the pod was replaced");

        let kubectl = |line: String| team.node.kubectl(&line);
        kubectl(format!("delete ms -n vllm {NAME} --cascade=foreground --timeout=120s"))?;
        let left = kubectl("get all -n vllm -l anneal.dev/server -o name".to_owned())?;
        ensure!(left.trim().is_empty(), "these are left: {left}");
        team.delete().await
    });
}

fn servers(team: &Team) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("anneal.dev", "v1alpha1", "ModelServer");
    Api::namespaced_with(team.client.clone(), team.name, &ApiResource::from_gvk(&kind))
}

async fn apply(servers: &Api<DynamicObject>, adapters: Value) -> Result<()> {
    let server = json!({
        "apiVersion": "anneal.dev/v1alpha1", "kind": "ModelServer", "metadata": {"name": NAME},
        "spec": {
            "engine": "VLLM",
            "baseModel": {"image": format!("{REGISTRY}/models/tiny:1")},
            "compute": {"gpus": 0},
            "adapters": adapters,
        },
    });
    let params = PatchParams::apply("user").force();
    servers.patch(NAME, &params, &Patch::Apply(&server)).await?;
    Ok(())
}

/// The status once the server is ready with so many adapters.
async fn ready(servers: &Api<DynamicObject>, summary: &str) -> Result<Value> {
    let holds = |server: Option<&DynamicObject>| {
        server.is_some_and(|server| {
            let status = &server.data["status"];
            status["observedGeneration"].as_i64() == server.metadata.generation
                && status["summary"] == summary
                && condition(status, "Ready")["status"] == "True"
        })
    };
    let found = until(servers, NAME, "ready", holds).await?;
    Ok(found.context("it is there")?.data["status"].clone())
}

async fn pod(team: &Team) -> Result<Pod> {
    let ours = ListParams::default().labels("anneal.dev/server");
    team.pods.list(&ours).await?.items.pop().context("no pod")
}

fn ask(pod: &Pod, model: &str) -> Result<Value> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let url = format!("http://{}:8000/v1/completions", address.context("no address")?);
    let body = json!({"model": model, "prompt": "red"}).to_string();
    let told = run(Command::new("curl").args(["-s", "-d", &body, &url]))?;
    serde_json::from_str(&told).with_context(|| told.clone())
}
