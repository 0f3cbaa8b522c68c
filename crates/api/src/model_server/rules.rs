//! Rules of a `ModelServer` that go beyond the form of each field, told by the field's name.

use std::collections::BTreeSet;

use super::{ModelServer, ServedAdapter};
use crate::fault::Fault;
use crate::names;

/// Everything that is wrong with a server whose fields have the right form.
pub fn faults(server: &ModelServer) -> Vec<Fault> {
    let (spec, mut faults) = (&server.spec, Vec::new());
    let base = &spec.base_model;
    let chosen = [
        ("path", base.path.is_some()),
        ("image", base.image.is_some()),
        ("huggingFace", base.hugging_face.is_some()),
    ];
    one_of("spec.baseModel", &chosen, &mut faults);
    if let Some(image) = &base.image {
        image_reference("spec.baseModel.image", image, &mut faults);
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
    if spec.replicas.is_some() && spec.autoscaling.is_some() {
        faults.push(fault("spec.replicas", "replicas and autoscaling exclude each other"));
    }
    if let Some(scaling) = &spec.autoscaling
        && scaling.min_replicas.is_some_and(|least| least > scaling.max_replicas)
    {
        faults.push(fault("spec.autoscaling.minReplicas", "minReplicas is above maxReplicas"));
    }
    let limits = spec.limits.clone().unwrap_or_default();
    for (field, bytes) in
        [("cacheMemory", limits.cache_memory), ("adapterMemory", limits.adapter_memory)]
    {
        if let Some(Err(error)) = bytes.as_deref().map(names::parse_bytes) {
            let path = format!("spec.limits.{field}");
            faults.push(Fault { hint: Some(error.hint), ..fault(&path, error.message) });
        }
    }
    faults
}

/// The base model's name in requests.
fn base_name(server: &ModelServer) -> String {
    let name = server.spec.model_name.clone();
    name.or_else(|| server.metadata.name.clone()).unwrap_or_default()
}

fn adapter_faults(adapter: &ServedAdapter, path: &str, faults: &mut Vec<Fault>) {
    let chosen = [
        ("workspace", adapter.workspace.is_some()),
        ("image", adapter.image.is_some()),
        ("path", adapter.path.is_some()),
    ];
    one_of(path, &chosen, faults);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if !adapter.name.chars().all(plain) {
        let message = format!("`{}` is no name: letters, digits and -_.:/ make one", adapter.name);
        faults.push(fault(&format!("{path}.name"), message));
    }
    if adapter.revision.is_some() && adapter.workspace.is_none() {
        faults.push(fault(&format!("{path}.revision"), "needs `workspace` beside it"));
    }
    if let Some(name) = &adapter.workspace
        && let Err(error) = names::parse_object_name(name)
    {
        let path = format!("{path}.workspace");
        faults.push(Fault { hint: Some(error.hint), ..fault(&path, error.message) });
    }
    if let Some(image) = &adapter.image {
        image_reference(&format!("{path}.image"), image, faults);
    }
}

fn image_reference(path: &str, image: &str, faults: &mut Vec<Fault>) {
    if let Err(error) = names::ImageReference::parse(image) {
        faults.push(Fault { hint: Some(error.hint), ..fault(path, error.message) });
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
