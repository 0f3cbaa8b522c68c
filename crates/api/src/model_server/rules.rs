//! Rules of a `ModelServer` that go beyond the form of each field, told by the field's name.

use std::collections::BTreeSet;

use super::{Engine, ModelServer, ModelServerSpec, ServedAdapter, ServingLimits};
use crate::fault::Fault;
use crate::names::{self, HubRepository, ImageReference, NameError, WorkspaceName};
use crate::schema;
use crate::workspace::ModelSource;

/// Everything that is wrong with a server whose fields have the right form.
pub fn faults(server: &ModelServer) -> Vec<Fault> {
    let (spec, mut faults) = (&server.spec, Vec::new());
    let name = server.metadata.name.as_deref().unwrap_or_default();
    let parsed = WorkspaceName::parse(name).map(drop).map_err(|error| error.message);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let parsed = parsed.and_then(|()| {
        if begins { Ok(()) } else { Err(format!("`{name}` does not begin with a letter")) }
    });
    if let Err(message) = parsed {
        let hint = "pods and Service are named after it: use at most 50 lower-case letters, digits and \
                    `-`, a letter first and no `-` last";
        faults.push(Fault { hint: Some(hint.to_owned()), ..fault("metadata.name", message) });
    }
    base_model(&spec.base_model, &mut faults);
    if let Some(name) = spec.model_name.as_deref().filter(|name| !is_served_name(name)) {
        faults.push(no_name("spec.modelName", name));
    }
    let mut taken = BTreeSet::from([base_name(server)]);
    for (index, adapter) in spec.adapters.iter().enumerate() {
        let path = format!("spec.adapters[{index}]");
        adapter_faults(adapter, &path, &mut faults);
        if !taken.insert(adapter.name.clone()) {
            let message = format!("the name `{}` is taken", adapter.name);
            faults.push(fault(&format!("{path}.name"), message));
        }
    }
    numbers(spec, &mut faults);
    faults
}

/// The same for a server that no schema has seen, as one that is older than a rule.
pub fn all_faults(server: &ModelServer) -> Vec<Fault> {
    let mut of_fields = Vec::new();
    let spec = serde_json::to_value(&server.spec);
    let mut spec = spec.expect("the spec holds nothing that JSON cannot");
    schema::check(&mut spec, schema::spec_of_servers(), "spec", &mut of_fields);
    if of_fields.is_empty() { faults(server) } else { of_fields }
}

/// The base model's name in requests.
pub fn base_name(server: &ModelServer) -> String {
    let name = server.spec.model_name.clone();
    name.or_else(|| server.metadata.name.clone()).unwrap_or_default()
}

fn base_model(base: &ModelSource, faults: &mut Vec<Fault>) {
    let chosen = [
        ("path", base.path.is_some()),
        ("image", base.image.is_some()),
        ("huggingFace", base.hugging_face.is_some()),
    ];
    one_of("spec.baseModel", &chosen, faults);
    path_is_some("spec.baseModel.path", base.path.as_deref(), faults);
    parsed("spec.baseModel.image", base.image.as_deref(), ImageReference::parse, faults);
    object_name("spec.baseModel.pullSecret", base.pull_secret.as_deref(), faults);
    if let Some(hub) = &base.hugging_face {
        let repo = |text: &str| HubRepository::parse(text, "main");
        parsed("spec.baseModel.huggingFace.repo", Some(&hub.repo), repo, faults);
        let field = "spec.baseModel.huggingFace.tokenSecret";
        object_name(field, hub.token_secret.as_deref(), faults);
    }
}

fn adapter_faults(adapter: &ServedAdapter, path: &str, faults: &mut Vec<Fault>) {
    let at = |field: &str| format!("{path}.{field}");
    let chosen = [
        ("workspace", adapter.workspace.is_some()),
        ("image", adapter.image.is_some()),
        ("path", adapter.path.is_some()),
    ];
    one_of(path, &chosen, faults);
    if !is_served_name(&adapter.name) {
        faults.push(no_name(&at("name"), &adapter.name));
    }
    if let Some(revision) = &adapter.revision {
        if adapter.workspace.is_none() {
            faults.push(fault(&at("revision"), "needs `workspace` beside it"));
        } else if !is_revision(revision) {
            let message = format!("`{revision}` is no revision of a workspace");
            faults.push(fault(&at("revision"), message));
        }
    }
    object_name(&at("workspace"), adapter.workspace.as_deref(), faults);
    parsed(&at("image"), adapter.image.as_deref(), ImageReference::parse, faults);
    path_is_some(&at("path"), adapter.path.as_deref(), faults);
    object_name(&at("pullSecret"), adapter.pull_secret.as_deref(), faults);
}

fn numbers(spec: &ModelServerSpec, faults: &mut Vec<Fault>) {
    if spec.replicas.is_some() && spec.autoscaling.is_some() {
        faults.push(fault("spec.replicas", "replicas and autoscaling exclude each other"));
    }
    if let Some(scaling) = &spec.autoscaling
        && scaling.min_replicas.is_some_and(|least| least > scaling.max_replicas)
    {
        faults.push(fault("spec.autoscaling.minReplicas", "minReplicas is above maxReplicas"));
    }
    object_name("spec.apiKeysSecret", spec.api_keys_secret.as_deref(), faults);
    let limits = spec.limits.clone().unwrap_or_default();
    if spec.engine == Engine::VLLM {
        of_vllm(spec, &limits, faults);
    }
    let memory = spec.compute.as_ref().and_then(|compute| compute.memory.clone());
    for (field, bytes) in [
        ("spec.limits.cacheMemory", limits.cache_memory),
        ("spec.limits.adapterMemory", limits.adapter_memory),
        ("spec.compute.memory", memory),
    ] {
        parsed(field, bytes.as_deref(), names::parse_bytes, faults);
    }
}

/// What vLLM settles by itself.
fn of_vllm(spec: &ModelServerSpec, limits: &ServingLimits, faults: &mut Vec<Fault>) {
    const HIGHEST_RANK: u32 = 512;
    for (field, is_set) in [
        ("spec.weights", spec.weights.is_some()),
        ("spec.limits.cacheMemory", limits.cache_memory.is_some()),
        ("spec.limits.adapterMemory", limits.adapter_memory.is_some()),
    ] {
        if is_set {
            faults.push(fault(field, "has no meaning with `engine: VLLM`"));
        }
    }
    if limits.max_rank.is_some_and(|rank| rank > HIGHEST_RANK) {
        let message = format!("is above {HIGHEST_RANK}, the highest rank of `engine: VLLM`");
        faults.push(fault("spec.limits.maxRank", message));
    }
}

/// Whether a text can be a model's name in requests.
fn is_served_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/".contains(c))
}

fn is_revision(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(plain) && text.chars().all(|c| plain(c) || c == '.' || c == '-')
}

fn no_name(field: &str, name: &str) -> Fault {
    fault(field, format!("`{name}` is no name: letters, digits and -_.:/ make one"))
}

fn path_is_some(field: &str, path: Option<&str>, faults: &mut Vec<Fault>) {
    if path.is_some_and(|path| path.trim().is_empty()) {
        faults.push(fault(field, "the path is empty"));
    }
}

fn object_name(field: &str, name: Option<&str>, faults: &mut Vec<Fault>) {
    parsed(field, name, names::parse_object_name, faults);
}

fn parsed<T>(
    field: &str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, NameError>,
    faults: &mut Vec<Fault>,
) {
    if let Some(Err(error)) = text.map(parse) {
        faults.push(Fault { hint: Some(error.hint), ..fault(field, error.message) });
    }
}

fn one_of(path: &str, choices: &[(&str, bool)], faults: &mut Vec<Fault>) {
    let chosen: Vec<&str> =
        choices.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    match chosen.as_slice() {
        [_] => {}
        [] => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let hint = Some(format!("set one of {}", names.join(", ")));
            faults.push(Fault { hint, ..fault(path, "nothing is chosen") });
        }
        many => faults.push(fault(path, format!("{} exclude each other", many.join(" and ")))),
    }
}

fn fault(path: &str, message: impl Into<String>) -> Fault {
    Fault { field: Some(path.to_owned()), message: message.into(), ..Fault::default() }
}
