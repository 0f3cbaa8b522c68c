//! Our images as they run: nothing to start but the program, and nobody who is root.

use anyhow::{Context, ensure};

use crate::support::{Company, on_node};

#[test]
fn there_is_no_shell_and_no_root_in_our_images() {
    on_node("images", Company::Any, async |team| {
        team.node.kubectl("wait -n anneal-system deployment/anneal-operator --for=condition=Available --timeout=60s")?;
        let pods = team.node.kubectl("get pods -n anneal-system -o name")?;
        let pod = pods.lines().next().context("no operator")?;
        for program in ["sh", "/bin/sh", "/bin/bash", "busybox"] {
            let entered =
                team.node.kubectl(&format!("exec -n anneal-system {pod} -- {program} -c true"));
            let told = entered.err().map(|error| format!("{error:#}")).context("it has a shell")?;
            ensure!(
                told.contains("executable file not found") || told.contains("no such file"),
                "{told}"
            );
        }
        let version =
            team.node.kubectl(&format!("exec -n anneal-system {pod} -- anneal-operator --help"))?;
        ensure!(version.contains("FineTuneWorkspaces"), "{version}");
        Ok(())
    });
}
