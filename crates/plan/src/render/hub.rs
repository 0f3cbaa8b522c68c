//! How a pod fetches a base model from the Hugging Face hub.

use api::valid::ModelSource;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};

use super::Context;
use crate::names::Role;

/// Key of the secret with the token.
const TOKEN: &str = "token";

/// The token of a secret.
pub(crate) fn token(secret: &str) -> EnvVar {
    EnvVar {
        name: "HF_TOKEN".to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: TOKEN.to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The token, the server, and the commit that preflight found; nothing for a model that is no repository.
pub(super) fn variables(context: &Context<'_>, role: Role) -> Vec<EnvVar> {
    if !matches!(context.workspace.base_model, ModelSource::HuggingFace(_)) {
        return Vec::new();
    }
    let stated = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let token = context.workspace.secrets.hub.as_deref().map(token);
    let endpoint = context.observed.settings.hub_endpoint.as_deref();
    // A branch may move between preflight and the attempts.
    let found = context.resolved().filter(|_| role == Role::Train);
    let pinned = found.and_then(|found| found.base_model);
    let commit = pinned.as_deref().and_then(|pinned| pinned.rsplit_once('@'));
    let mut variables: Vec<EnvVar> = token.into_iter().collect();
    variables.extend(endpoint.map(|endpoint| stated("HF_ENDPOINT", endpoint)));
    variables.extend(commit.map(|(_, commit)| stated("ANNEAL_HUB_REVISION", commit)));
    variables
}
