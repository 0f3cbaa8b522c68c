//! `cargo xtask gen`: writes what is generated from the code. The test that finds it stale is the one
//! that writes it.

use anyhow::Result;

use crate::shell;

/// Writes the custom resource definitions into `deploy/crds`, and the operator's roles and the chart's
/// copies of both.
pub(crate) fn run() -> Result<()> {
    shell::stage("custom resource definitions", || {
        let test = "the_committed_crds_are_those_that_the_types_give";
        let mut cargo = shell::cargo();
        cargo.args(["test", "--quiet", "--release", "--workspace", "--test", "rules", test]);
        shell::output(cargo.env("UPDATE_GOLDEN", "1"))?;
        Ok(())
    })?;
    shell::stage("roles and chart", || {
        let test = "the_committed_roles_are_those_that_the_operator_needs";
        let mut cargo = shell::cargo();
        cargo.args([
            "test",
            "--quiet",
            "--release",
            "--workspace",
            "--bin",
            "anneal-operator",
            test,
        ]);
        shell::output(cargo.env("UPDATE_GOLDEN", "1"))?;
        Ok(())
    })?;
    shell::stage("copies of alerts and dashboard", || {
        let mut cargo = shell::cargo();
        cargo.args(["test", "--quiet", "--release", "--workspace"]);
        cargo.args(["--test", "chart", "copies::"]);
        shell::output(cargo.env("UPDATE_GOLDEN", "1"))?;
        Ok(())
    })
}
