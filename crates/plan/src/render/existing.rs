//! Nodes that are there: picked by the labels of GPU feature discovery, or of GKE. Nothing is made.
//!
//! A slice of a GPU (MIG, strategy `single`) is a node's GPU like any other: feature discovery labels the
//! node with the slice's memory. Slices of several sizes on one node (strategy `mixed`) are resources of
//! other names, and are not asked for.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use super::pool::{GPU, tolerate};
use crate::nodes::Placement;

pub(super) fn put(pod: &mut PodSpec, placement: &Placement<'_>) {
    let above = |number: u64| vec![number.saturating_sub(1).to_string()];
    let needs = placement.needs.div_ceil(1 << 20);
    let mut discovered = vec![
        require("nvidia.com/gpu.memory", "Gt", above(needs)),
        require("nvidia.com/gpu.count", "Gt", above(u64::from(placement.gpus))),
    ];
    if !placement.nodes.products.is_empty() {
        let labels = placement.products.iter().flat_map(|product| product.labels.clone());
        discovered.push(require("nvidia.com/gpu.product", "In", labels.collect()));
    }
    let words: Vec<String> =
        placement.products.iter().filter_map(|product| product.gke.clone()).collect();
    let of_gke = vec![require("cloud.google.com/gke-accelerator", "In", words.clone())];
    let terms = [discovered, if words.is_empty() { Vec::new() } else { of_gke }];
    let zones = &placement.nodes.zones;
    let zone =
        (!zones.is_empty()).then(|| require("topology.kubernetes.io/zone", "In", zones.clone()));
    let terms = terms.into_iter().filter(|term| !term.is_empty()).map(|mut term| {
        term.extend(zone.clone());
        NodeSelectorTerm { match_expressions: Some(term), match_fields: None }
    });
    pod.affinity = Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: terms.collect(),
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    });
    tolerate(pod, GPU, None);
}

fn require(key: &str, operator: &str, values: Vec<String>) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values),
    }
}
