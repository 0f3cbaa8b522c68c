//! A node that says that it has GPUs: a run that asks for one gets it by its labels, and one that no node
//! could hold is told so. There is no driver, so that the trainer trains on the CPU.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::support::{Company, Team, condition, on_node};

const GPU: &str = "/status/capacity/nvidia.com~1gpu";
const LABELS: [&str; 3] =
    ["nvidia.com/gpu.memory", "nvidia.com/gpu.count", "nvidia.com/gpu.product"];

#[test]
fn a_node_with_a_gpu_is_found_by_its_labels() {
    on_node("gpus", Company::None, async |team| {
        let patch = format!(r#"[{{"op":"add","path":"{GPU}","value":"1"}}]"#);
        team.node
            .kubectl(&format!("patch node node1 --subresource=status --type=json -p={patch}"))?;
        let values = ["24576", "1", "NVIDIA-L4"];
        let labels = LABELS.iter().zip(values).map(|(label, value)| format!("{label}={value}"));
        let labels = labels.collect::<Vec<_>>().join(" ");
        team.node.kubectl(&format!("label node node1 {labels}"))?;
        let result = runs(team).await;
        let none = LABELS.map(|label| format!("{label}-")).join(" ");
        team.node.kubectl(&format!("label node node1 {none}"))?;
        let patch = format!(r#"[{{"op":"remove","path":"{GPU}"}}]"#);
        team.node
            .kubectl(&format!("patch node node1 --subresource=status --type=json -p={patch}"))?;
        result
    });
}

async fn runs(team: &Team) -> Result<()> {
    let mut workspace = team.workspace();
    workspace["spec"]["compute"] =
        json!({"nodes": {"provisioner": "Existing", "gpuMemory": "90Gi"}});
    team.apply(&workspace).await?;
    let status = team.reached("Provisioning", "NoNodeFits").await?;
    let message = condition(&status, "Ready")["message"].to_string();
    ensure!(message.contains("on node1"), "{message}");
    team.delete().await?;

    workspace["spec"]["compute"] = json!({"nodes": {"provisioner": "Existing"}});
    team.apply(&workspace).await?;
    let status = team.succeeded().await?;
    let capacity = &status["capacity"];
    ensure!(capacity["provisioner"] == "Existing", "{status:#}");
    ensure!(capacity["uses"][0]["node"] == "node1", "{status:#}");
    ensure!(capacity["uses"][0]["gpus"] == 1, "{status:#}");
    let seconds = |what: &str| capacity["gpuSeconds"][what].as_u64();
    ensure!(seconds("used") <= seconds("held"), "{status:#}");
    ensure!(seconds("held") <= seconds("asked"), "{status:#}");
    team.delete().await
}
