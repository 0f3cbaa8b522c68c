//! The main story with no shortcut: base model and data pushed as images to a registry that takes a login,
//! `kubectl apply`, SmolLM2 trained in a real pod, the adapter pulled back and loaded by PEFT with the
//! logits that we have of it, the workspace deleted, and nothing left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::support::{
    Company, LOGIN, PASSWORD, Team, builds, condition, docker_folder, on_node, run, tests,
};

const WORKSPACE: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata: {name: tune}
spec:
  baseModel: {image: \"10.99.0.1:5001/models/smollm2:1\", pullSecret: registry}
  data:
    train: {image: \"10.99.0.1:5001/data/story:1\"}
    test: {fraction: 0.2}
    pullSecret: registry
  hyperparameters: {maxSteps: 3, batchSize: 2}
  evaluation: {maxExamples: 2, maxNewTokens: 4}
  output: {image: \"10.99.0.1:5001/team/story\", pushSecret: registry}
";

#[test]
fn from_an_empty_cluster_to_an_adapter_that_peft_loads() {
    // The node's network reaches no package index.
    let requirements = tests("../numerics/scripts/requirements.txt");
    let python = testkit::python::environment("venv-peer", &requirements).unwrap();
    on_node("story", Company::Any, async move |team| {
        let model = testkit::smollm2()?;
        let folder = tempfile::tempdir()?;
        let login = folder.path().join("docker");
        docker_folder(&login, LOGIN, PASSWORD)?;
        let anneal = |arguments: &[&str]| {
            let mut command = Command::new(builds().join("anneal"));
            run(command.args(arguments).arg("--plain-http").env("DOCKER_CONFIG", &login))
        };
        let data = folder.path().join("train.jsonl");
        fs::write(&data, examples())?;
        for (source, target) in [(&model, "models/smollm2:1"), (&data, "data/story:1")] {
            let target = format!("{LOGIN}/{target}");
            anneal(&["push", &source.display().to_string(), &target])?;
        }

        team.login("registry", LOGIN, PASSWORD).await?;
        let file = folder.path().join("tune.yaml");
        fs::write(&file, WORKSPACE)?;
        team.node.kubectl(&format!("apply -n story -f {}", file.display()))?;
        team.node.kubectl("wait -n story ftw/tune --for=condition=Ready --timeout=300s")?;
        let status = team.succeeded().await?;
        ensure!(status["progress"]["summary"] == "3/3", "{status:#}");
        ensure!(condition(&status, "Complete")["status"] == "True", "{status:#}");
        ensure!(
            status["evaluation"].as_array().is_some_and(|scores| !scores.is_empty()),
            "{status:#}"
        );
        let table = team.node.kubectl("get ftw -n story")?;
        ensure!(table.contains("Succeeded") && table.contains("3/3"), "{table}");
        let pods = team.node.kubectl("get pods -n story -o yaml")?;
        ensure!(!pods.contains("kube-api-access"), "a trainer has a token of the API server");
        no_secret_is_told(team)?;

        let digest = status["adapter"]["digest"].as_str().context("no digest")?;
        let pulled = folder.path().join("adapter");
        let reference = format!("{LOGIN}/team/story@{digest}");
        anneal(&["pull", &reference, &pulled.display().to_string()])?;
        let adapter = folder_of(&pulled, "adapter_config.json").context("no adapter came")?;
        peft_agrees(&python, &model, &adapter, folder.path())?;

        team.delete().await?;
        Ok(())
    });
}

/// The password is the canary: nothing that anybody may look at holds it.
fn no_secret_is_told(team: &Team) -> Result<()> {
    for line in [
        "get ftw,jobs,pods,configmaps,events -n story -o yaml",
        "logs -n story -l anneal.dev/workspace --tail=-1",
        "logs -n anneal-system -l app.kubernetes.io/name=anneal-operator --tail=-1",
    ] {
        let told = team.node.kubectl(line)?;
        ensure!(!told.contains(PASSWORD), "`kubectl {line}` tells the password");
    }
    Ok(())
}

/// PEFT's logits of the base model with the adapter are ours.
fn peft_agrees(python: &Path, model: &Path, adapter: &Path, folder: &Path) -> Result<()> {
    let (ids, logits) = (folder.join("ids.json"), folder.join("logits.safetensors"));
    fs::write(&ids, "[1, 504, 2062, 198, 9690, 28, 732, 1343]")?;
    let mut ours = Command::new(builds().join("logits"));
    run(ours.args([model, adapter, &ids, &logits]).env("OMP_WAIT_POLICY", "PASSIVE"))?;
    let script = tests("../clients/scripts/peft_agrees.py");
    let mut theirs = testkit::python::script(python, &script);
    run(theirs.args([model, adapter, &ids, &logits]))?;
    Ok(())
}

fn examples() -> String {
    let colors = ["red", "green", "blue"];
    (0..24)
        .map(|number| {
            let color = colors[number % colors.len()];
            format!("{{\"prompt\": \"{number}: which color?\", \"completion\": \"{color}\"}}\n")
        })
        .collect()
}

/// The folder below another that holds a file.
fn folder_of(folder: &Path, name: &str) -> Option<PathBuf> {
    if folder.join(name).is_file() {
        return Some(folder.to_owned());
    }
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .find_map(|path| folder_of(&path, name))
}
