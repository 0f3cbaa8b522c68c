//! A GPU that the real node advertises. There is none in the machine: the trainer finds no CUDA and takes the
//! CPU. The scheduler and the kubelet count the GPU all the same.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::{Company, Team, condition, on_node, until};

const GPU: &str = "nvidia.com/gpu";
/// What GPU feature discovery would tell of the node.
const LABELS: [(&str, &str); 3] = [
    ("nvidia.com/gpu.product", "NVIDIA-L4"),
    ("nvidia.com/gpu.memory", "23034"),
    ("nvidia.com/gpu.count", "1"),
];

/// It waits for a GPU and says so; it takes the GPU that comes, and gives it back at its end, while the
/// workspace is still there.
#[test]
fn a_gpu_is_taken_when_there_is_one_and_free_after_the_run() {
    on_node("gpu", Company::None, async |team| {
        let nodes: Api<Node> = Api::all(team.client.clone());
        let result = runs(team, &nodes).await;
        advertise(&nodes, false).await?;
        result
    });
}

async fn runs(team: &Team, nodes: &Api<Node>) -> Result<()> {
    let mut workspace = team.workspace();
    workspace["spec"]["compute"] =
        json!({"nodes": {"provisioner": "Existing", "products": ["NVIDIA L4"]}});
    team.apply(&workspace).await?;
    let status = team.reached("Provisioning", "NoNodeFits").await?;
    let message = condition(&status, "Ready")["message"].to_string();
    ensure!(message.contains("no node has as many GPUs"), "{message}");

    advertise(nodes, true).await?;
    let status = team.succeeded().await?;
    let used = &status["capacity"]["uses"][0];
    ensure!(used["node"] == "node1" && used["gpus"] == 1, "{status:#}");
    ensure!(used["ended"].is_string(), "{status:#}");
    ensure!(status["capacity"]["gpuSeconds"]["used"].is_u64(), "{status:#}");
    let name = used["pod"].as_str().context("no pod")?;
    ensure!(asked(&team.pods.get(name).await?) == Some("1"), "the pod did not ask for a GPU");

    // The only GPU there is.
    workspace["metadata"]["name"] = json!("second");
    workspace["spec"]["output"]["image"] = json!(format!("{}-2", output(&workspace)));
    team.apply(&workspace).await?;
    let is_over = |workspace: Option<&DynamicObject>| {
        let phase = workspace.map(|workspace| &workspace.data["status"]["phase"]);
        phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
    };
    let second = until(&team.workspaces, "second", "its end", is_over).await?;
    let status = second.context("it is there")?.data["status"].clone();
    ensure!(status["phase"] == "Succeeded", "{status:#}");

    team.workspaces.delete("second", &DeleteParams::foreground()).await?;
    let is_gone = |workspace: Option<&DynamicObject>| workspace.is_none();
    until(&team.workspaces, "second", "to be gone", is_gone).await?;
    team.delete().await
}

fn output(workspace: &Value) -> &str {
    workspace["spec"]["output"]["image"].as_str().unwrap_or_default()
}

/// GPUs that a pod asks for.
fn asked(pod: &Pod) -> Option<&str> {
    let asked = pod.spec.as_ref()?.containers.first()?.resources.as_ref()?.requests.as_ref()?;
    asked.get(GPU).map(|quantity| quantity.0.as_str())
}

/// The only node has a GPU from now on, or none any more.
async fn advertise(nodes: &Api<Node>, is_there: bool) -> Result<()> {
    let params = PatchParams::default();
    let node = nodes.list(&ListParams::default()).await?.items.pop().context("no node")?;
    let value = |value: &str| if is_there { json!(value) } else { Value::Null };
    let labels: serde_json::Map<String, Value> =
        LABELS.iter().map(|(label, text)| ((*label).to_owned(), value(text))).collect();
    let labels = json!({"metadata": {"labels": labels}});
    nodes.patch(&node.name_any(), &params, &Patch::Merge(&labels)).await?;
    let gpus = json!({"status": {"capacity": {GPU: value("1")}, "allocatable": {GPU: value("1")}}});
    nodes.patch_status(&node.name_any(), &params, &Patch::Merge(&gpus)).await?;
    let is_so = |node: Option<&Node>| {
        let free = node.and_then(|node| node.status.as_ref()?.allocatable.as_ref());
        free.is_some_and(|free| free.contains_key(GPU) == is_there)
    };
    until(nodes, &node.name_any(), "its GPU to come or go", is_so).await?;
    Ok(())
}
