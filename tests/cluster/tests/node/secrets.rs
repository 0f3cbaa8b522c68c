//! Logins that are missing, wrong or malformed, at a registry that asks for one.

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{
    Company, LOGIN, PASSWORD, Team, colors, condition, docker_options, on_node, push_data,
};

/// Data in the registry with the login, and its pull secret in the spec.
async fn private_data(team: &Team) -> Result<Value> {
    let image = format!("{LOGIN}/{}/data:1", team.name);
    let folder = tempfile::tempdir()?;
    let options = docker_options(folder.path(), LOGIN, PASSWORD)?;
    // Its content is its own, as the node lets in everybody who asks for content that it has.
    let text = colors() + &format!("{{\"prompt\": \"who?\", \"completion\": \"{}\"}}\n", team.name);
    push_data(&image, &options, &text).await?;
    let mut workspace = team.workspace();
    workspace["spec"]["data"] = json!({"train": {"image": image}, "pullSecret": "pull"});
    Ok(workspace)
}

fn private_output(team: &Team) -> Value {
    let mut workspace = team.workspace();
    let image = format!("{LOGIN}/{}/tune", team.name);
    workspace["spec"]["output"] = json!({"image": image, "pushSecret": "push"});
    workspace
}

#[test]
fn secrets_that_are_missing_or_malformed_are_named_and_nothing_runs() {
    on_node("no-secret", Company::Any, async |team| {
        let mut workspace = private_data(team).await?;
        workspace["spec"]["output"] = private_output(team)["spec"]["output"].clone();
        team.docker_config("push", "{\"auths\": []}").await?;
        team.apply(&workspace).await?;
        let status = team.reached("Rejected", "InvalidSecret").await?;
        let message = condition(&status, "Ready")["message"].to_string();
        ensure!(message.contains("spec.data.pullSecret: there is no secret `pull`"), "{message}");
        ensure!(message.contains("the secret `push` cannot be used"), "{message}");
        // And the other way round.
        team.docker_config("pull", "{\"auths\": []}").await?;
        team.secrets.delete("push", &DeleteParams::default()).await?;
        let are_swapped = |status: &Value| {
            let message = condition(status, "Ready")["message"].to_string();
            message.contains("the secret `pull` cannot be used")
                && message.contains("spec.output.pushSecret: there is no secret `push`")
        };
        team.when("a malformed pull secret and no push secret", are_swapped).await?;
        ensure!(team.left().await?.is_empty(), "{:?}", team.left().await?);
        for secret in ["pull", "push"] {
            team.login(secret, LOGIN, PASSWORD).await?;
        }
        team.succeeded().await?;
        team.delete().await
    });
}

#[test]
fn a_pull_secret_that_the_registry_refuses_is_told_until_it_is_right() {
    on_node("wrong-pull", Company::Any, async |team| {
        let workspace = private_data(team).await?;
        team.login("pull", LOGIN, "a guess").await?;
        team.apply(&workspace).await?;
        let status = team.reached("Preflight", "ImagePullFailed").await?;
        let message = condition(&status, "Ready")["message"].to_string();
        ensure!(message.contains("/wrong-pull/data:1") && message.contains("401"), "{message}");
        ensure!(message.contains("pull secrets"), "{message}");
        team.login("pull", LOGIN, PASSWORD).await?;
        team.succeeded().await?;
        team.delete().await
    });
}

/// The push is tried before anything is trained.
#[test]
fn a_push_secret_that_the_registry_refuses_ends_the_run_before_training() {
    on_node("wrong-push", Company::Any, async |team| {
        team.login("push", LOGIN, "a guess").await?;
        team.apply(&private_output(team)).await?;
        let status = team.reached("Failed", "CredentialRefused").await?;
        let message = condition(&status, "Failed")["message"].to_string();
        ensure!(message.contains(LOGIN) && message.contains("; next: "), "{message}");
        ensure!(!message.contains("a guess"), "the password is told");
        ensure!(team.job_names().await?.len() == 1, "{:?}", team.job_names().await?);

        // An edit of any kind runs it again.
        team.login("push", LOGIN, PASSWORD).await?;
        let mut again = private_output(team);
        again["spec"]["limits"] = json!({"retries": 1});
        team.apply(&again).await?;
        team.when("a new start", |status| status["phase"] != "Failed").await?;
        team.succeeded().await?;
        team.delete().await
    });
}
