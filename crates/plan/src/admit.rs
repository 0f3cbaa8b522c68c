//! What a cluster asks of a workspace beyond what a local run does.

use api::{Fault, Workspace, valid};

use crate::observed::{Observed, SecretState};

/// What only a local run has, and what only a cluster needs.
pub(crate) fn cluster_faults(workspace: &Workspace) -> Vec<Fault> {
    let mut faults = Vec::new();
    let local = "use `image`: push the folder with `anneal push`, or any tool that makes images";
    if matches!(workspace.base_model, valid::ModelSource::Path(_)) {
        let hint = "use `image`: push the folder with `anneal push`, or any tool that makes images";
        faults.push(fault("spec.baseModel.path", "a path has no meaning in a cluster", hint));
    }
    let held_out = |held_out: &valid::HeldOut| match held_out {
        valid::HeldOut::Source(source) => Some(source.clone()),
        valid::HeldOut::None | valid::HeldOut::Fraction(_) => None,
    };
    let sources = [
        ("spec.data.train", Some(workspace.data.train.clone())),
        ("spec.data.validation", held_out(&workspace.data.validation)),
        ("spec.data.test", held_out(&workspace.data.test)),
    ];
    for (field, source) in sources {
        if matches!(source, Some(valid::DataSource::Paths(_))) {
            faults.push(fault(field, "a path has no meaning in a cluster", local));
        }
    }
    if workspace.output.image.is_none() {
        let hint = "set output.image to a repository, such as `registry.example.com/team/name`";
        faults.push(fault("spec.output.image", "is needed in a cluster", hint));
    }
    faults
}

/// Secrets that are missing or malformed, with the fields that name them.
pub(crate) fn secrets(workspace: &Workspace, observed: &Observed) -> Vec<Fault> {
    const DOCKER: &str = "create it in the workspace's namespace: \
                          `kubectl create secret docker-registry NAME --docker-server=… \
                          --docker-username=… --docker-password=…`";
    const TOKEN: &str = "create it in the workspace's namespace: \
                         `kubectl create secret generic NAME --from-literal=token=…`";
    let valid::Secrets { pull_model, pull_data, push, hub } = &workspace.secrets;
    let named = [
        ("spec.baseModel.pullSecret", pull_model, DOCKER),
        ("spec.data.pullSecret", pull_data, DOCKER),
        ("spec.output.pushSecret", push, DOCKER),
        ("spec.baseModel.huggingFace.tokenSecret", hub, TOKEN),
    ];
    let mut faults = Vec::new();
    for (field, name, hint) in named {
        let Some(name) = name else { continue };
        match observed.secrets.get(name) {
            None | Some(SecretState::Usable) => {}
            Some(SecretState::Missing) => {
                let message = format!("there is no secret `{name}` in the workspace's namespace");
                faults.push(fault(field, message, hint));
            }
            Some(SecretState::Malformed(why)) => {
                let message = format!("the secret `{name}` cannot be used: {why}");
                faults.push(fault(field, message, "create it anew"));
            }
        }
    }
    faults
}

fn fault(field: &str, message: impl Into<String>, hint: &str) -> Fault {
    Fault {
        field: Some(field.to_owned()),
        message: message.into(),
        hint: Some(hint.to_owned()),
        ..Fault::default()
    }
}
