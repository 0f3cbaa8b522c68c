//! Rules of the GPU nodes that a run gets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Faults;
use crate::names::{parse_bytes, parse_duration, parse_object_name};
use crate::run_spec::Device;
use crate::valid::Nodes;
use crate::workspace::{CapacityType, ComputeSpec, NodesSpec, Provisioner};

/// Interruptions after which a run asks for nodes on demand, where it does not say.
const MAX_INTERRUPTIONS: u32 = 3;
/// Time that a node without a pod stays, where the workspace does not say.
const TTL_AFTER_IDLE: Duration = Duration::from_mins(2);
/// Characters of a label's name, and of its value.
const MOST: usize = 63;

pub(super) fn nodes(compute: &ComputeSpec, faults: &mut Faults) -> Option<Nodes> {
    let raw = compute.nodes.as_ref()?;
    if compute.device == Device::Cpu {
        let hint = "remove one of them";
        faults.add("spec.compute.nodes", "nodes and device: CPU exclude each other", hint);
    }
    if compute.gpus == Some(0) {
        let hint = "remove `gpus`, or state how many";
        faults.add("spec.compute.gpus", "nodes and gpus: 0 exclude each other", hint);
    }
    fitting(raw, faults);
    names("products", "a product is empty", &raw.products, faults);
    names("zones", "a zone is empty", &raw.zones, faults);
    labels(&raw.labels, faults);
    if let Some(class) = &raw.node_class_ref {
        faults.name("spec.compute.nodes.nodeClassRef.name", parse_object_name(&class.name));
    }
    let memory = raw.gpu_memory.as_deref();
    let memory =
        memory.and_then(|text| faults.name("spec.compute.nodes.gpuMemory", parse_bytes(text)));
    let ttl = raw.ttl_after_idle.as_deref();
    let ttl =
        ttl.and_then(|text| faults.name("spec.compute.nodes.ttlAfterIdle", parse_duration(text)));
    Some(Nodes {
        provisioner: raw.provisioner,
        node_class: raw.node_class_ref.clone(),
        capacity_type: raw.capacity_type.unwrap_or_default(),
        max_interruptions: raw.max_interruptions.unwrap_or(MAX_INTERRUPTIONS),
        products: raw.products.clone(),
        gpu_memory: memory,
        zones: raw.zones.clone(),
        ttl_after_idle: ttl.unwrap_or(TTL_AFTER_IDLE),
        labels: raw.labels.clone(),
    })
}

/// What has a meaning with one provisioner, or beside another field.
fn fitting(raw: &NodesSpec, faults: &mut Faults) {
    let provisioner = raw.provisioner.unwrap_or(Provisioner::Karpenter);
    if raw.node_class_ref.is_some() && provisioner != Provisioner::Karpenter {
        let hint = "remove it, or use `provisioner: Karpenter`";
        let message = "nodeClassRef is Karpenter's, and has no meaning with another provisioner";
        faults.add("spec.compute.nodes.nodeClassRef", message, hint);
    }
    let falls_back = raw.capacity_type == Some(CapacityType::SpotThenOnDemand);
    if raw.max_interruptions.is_some() && !falls_back {
        let hint = "remove it, or use that capacity type";
        let message = "maxInterruptions needs `capacityType: SpotThenOnDemand`";
        faults.add("spec.compute.nodes.maxInterruptions", message, hint);
    }
    let made = [
        ("capacityType", raw.capacity_type.is_some()),
        ("ttlAfterIdle", raw.ttl_after_idle.is_some()),
        ("labels", !raw.labels.is_empty()),
    ];
    if matches!(provisioner, Provisioner::Existing | Provisioner::Dra) {
        for (field, _) in made.iter().filter(|(_, is_set)| *is_set) {
            let message = format!("{field} is of nodes that are made: Existing and DRA make none");
            let hint = "remove it, or use another provisioner";
            faults.add(&format!("spec.compute.nodes.{field}"), message, hint);
        }
    }
}

fn names(field: &str, empty: &str, names: &[String], faults: &mut Faults) {
    for (index, name) in names.iter().enumerate() {
        let field = format!("spec.compute.nodes.{field}[{index}]");
        if name.trim().is_empty() {
            faults.add(&field, empty, "remove it");
        } else if names[..index].contains(name) {
            faults.add(&field, format!("`{name}` is named twice"), "remove one of them");
        }
    }
}

/// Labels as the API server takes them. Those of Kubernetes and Karpenter are not for users to set.
fn labels(labels: &BTreeMap<String, String>, faults: &mut Faults) {
    let is_word = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= MOST
            && text.chars().all(inner)
            && ends(text.chars().next())
            && ends(text.chars().next_back())
    };
    for (key, value) in labels {
        let (prefix, name) = key
            .rsplit_once('/')
            .map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
        let field = format!("spec.compute.nodes.labels.{key}");
        let is_taken = |prefix: &str| {
            ["kubernetes.io", "k8s.io", "karpenter.sh", "anneal.dev"]
                .iter()
                .any(|taken| prefix == *taken || prefix.ends_with(&format!(".{taken}")))
        };
        if !is_word(name) || prefix.is_some_and(|prefix| parse_object_name(prefix).is_err()) {
            faults.add(
                &field,
                format!("`{key}` is not a label"),
                "write it as `team` or `example.com/team`",
            );
        } else if prefix.is_some_and(is_taken) {
            let message = format!("`{key}` is set by Kubernetes, Karpenter or Anneal alone");
            faults.add(&field, message, "use a prefix of your own");
        } else if !(value.is_empty() || is_word(value)) {
            let hint = "use letters, digits, `-`, `_` and `.`, at most 63";
            faults.add(&field, format!("`{value}` is not a label's value"), hint);
        }
    }
}
