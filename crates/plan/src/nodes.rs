//! Which GPU nodes a run gets, and whether they should be there at this moment.

use std::collections::BTreeMap;

use api::condition::Reason;
use api::valid::Nodes;
use api::workspace::{CapacityType, NodeClassRef, Provisioner, Smaller};
use api::{Fault, Workspace};
use k8s_openapi::api::batch::v1::Job;

use crate::catalogue::{Catalogue, Product};
use crate::names::{PROVISIONER, label};
use crate::observed::{ClusterFacts, NodeFacts, Observed};
use crate::resolve::bytes;
use crate::seen::{JobState, Seen, state};
use crate::trouble::Trouble;

/// Products beside the chosen one that a pool may take, and that the status names.
const RUNNERS_UP: usize = 4;

/// What a run's nodes are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placement<'a> {
    pub(crate) nodes: &'a Nodes,
    pub(crate) provisioner: Provisioner,
    pub(crate) gpus: u32,
    /// Bytes that a GPU must have.
    pub(crate) needs: u64,
    /// The products that hold the run, the chosen one first. For Karpenter and GKE at least one.
    pub(crate) products: Vec<&'a Product>,
    /// Karpenter's alone.
    pub(crate) class: Option<NodeClassRef>,
    /// By product, Karpenter's instance types; all have as many GPUs.
    pub(crate) types: Vec<String>,
    /// GPUs of one node.
    pub(crate) gpus_of_node: u32,
    pub(crate) capacity_type: CapacityType,
    pub(crate) reason: String,
}

/// What preflight found out of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs<'a> {
    /// Bytes of a GPU.
    pub(crate) memory: u64,
    /// Changes with which it would be less, the cheapest first.
    pub(crate) smaller: &'a [Smaller],
}

/// Why there can be no nodes for a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NoPlace {
    /// No product holds it: the user has to change something.
    TooSmall(Fault),
    /// The cluster lacks something that may come.
    Missing(Trouble),
}

/// The nodes of a run that asks for some; `interruptions` counts those of this pass too.
pub(crate) fn placement<'a>(
    workspace: &'a Workspace,
    needs: &Needs<'_>,
    interruptions: u32,
    seen: &Seen<'_>,
    observed: &'a Observed,
) -> Option<Result<Placement<'a>, NoPlace>> {
    let nodes = workspace.compute.nodes.as_ref()?;
    let placed = place(nodes, workspace.compute.gpus, needs, seen, observed);
    Some(placed.map(|placement| Placement {
        capacity_type: capacity_type(nodes, interruptions),
        ..placement
    }))
}

fn place<'a>(
    nodes: &'a Nodes,
    gpus: u32,
    found: &Needs<'_>,
    seen: &Seen<'_>,
    observed: &'a Observed,
) -> Result<Placement<'a>, NoPlace> {
    let facts = &observed.cluster;
    let provisioner = provisioner(nodes, seen, facts);
    let class = match provisioner {
        Provisioner::Karpenter => Some(class(nodes, facts)?),
        Provisioner::Gke | Provisioner::Existing | Provisioner::Dra => None,
    };
    if provisioner == Provisioner::Gke && !facts.compute_classes {
        return Err(missing("ComputeClass (cloud.google.com/v1)", "use another provisioner"));
    }
    if provisioner == Provisioner::Dra && !facts.resource_claims {
        return Err(missing("ResourceClaimTemplate (resource.k8s.io/v1)", "use Existing"));
    }
    let needs = found.memory.max(nodes.gpu_memory.unwrap_or_default());
    let fitting = fitting(nodes, needs, found.smaller, &observed.catalogue)?;
    let cloud = class.as_ref().map(|class| cloud(class.kind.as_deref().unwrap_or_default()));
    let offers = offers(provisioner, cloud, gpus, &fitting)?;
    let fewest = offers.iter().map(|(_, count, _)| *count).min().unwrap_or(gpus);
    let offers: Vec<_> = offers.into_iter().filter(|(_, count, _)| *count == fewest).collect();
    let offers = &offers[..offers.len().min(1 + RUNNERS_UP)];
    let products: Vec<&Product> = offers.iter().map(|(product, ..)| *product).collect();
    let reason = reason(&products, fewest, gpus, needs);
    Ok(Placement {
        nodes,
        provisioner,
        gpus,
        needs,
        types: offers.iter().filter_map(|(.., type_)| type_.clone()).collect(),
        products,
        class,
        gpus_of_node: fewest,
        capacity_type: nodes.capacity_type,
        reason,
    })
}

/// What a Job was made for, else what is stated, else what the cluster has.
fn provisioner(nodes: &Nodes, seen: &Seen<'_>, facts: &ClusterFacts) -> Provisioner {
    let made_for = seen.trainings.last().and_then(|job| of_job(job));
    let found = match facts {
        ClusterFacts { node_pools: true, node_classes, .. }
            if !node_classes.is_empty() || nodes.node_class.is_some() =>
        {
            Provisioner::Karpenter
        }
        ClusterFacts { compute_classes: true, .. } => Provisioner::Gke,
        ClusterFacts { .. } => Provisioner::Existing,
    };
    made_for.or(nodes.provisioner).unwrap_or(found)
}

fn of_job(job: &Job) -> Option<Provisioner> {
    let is_open = matches!(state(job), JobState::Active | JobState::Suspended);
    let text = label(&job.metadata, PROVISIONER).filter(|_| is_open)?;
    ALL.into_iter().find(|one| word(*one) == text)
}

const ALL: [Provisioner; 4] =
    [Provisioner::Karpenter, Provisioner::Gke, Provisioner::Existing, Provisioner::Dra];

/// The word in the spec.
pub(crate) const fn word(provisioner: Provisioner) -> &'static str {
    match provisioner {
        Provisioner::Karpenter => "Karpenter",
        Provisioner::Gke => "GKE",
        Provisioner::Existing => "Existing",
        Provisioner::Dra => "DRA",
    }
}

/// The node class that is named, with what is not stated from what the cluster has.
fn class(nodes: &Nodes, facts: &ClusterFacts) -> Result<NodeClassRef, NoPlace> {
    if !facts.node_pools {
        return Err(missing("NodePool (karpenter.sh/v1)", "install Karpenter"));
    }
    let stated = nodes.node_class.clone();
    let named =
        stated.unwrap_or(NodeClassRef { name: "default".to_owned(), ..NodeClassRef::default() });
    let fits = |(group, kind): &&(String, String)| {
        named.kind.as_ref().is_none_or(|stated| stated == kind)
            && named.group.as_ref().is_none_or(|stated| stated == group)
    };
    match (facts.node_classes.iter().find(fits), &named) {
        (Some((group, kind)), _) => Ok(NodeClassRef {
            group: Some(group.clone()),
            kind: Some(kind.clone()),
            name: named.name,
        }),
        (None, NodeClassRef { group: Some(_), kind: Some(_), .. }) => Ok(named),
        (None, _) => Err(missing("node class of Karpenter's", "state compute.nodes.nodeClassRef")),
    }
}

fn missing(what: &str, hint: &str) -> NoPlace {
    NoPlace::Missing(Trouble {
        reason: Reason::ProvisionerMissing,
        message: format!("the cluster serves no {what}"),
        hint: format!("{hint}, or change compute.nodes.provisioner; the operator looks again"),
        is_final: false,
    })
}

/// The clouds' kinds of node classes, and what they are called in the catalogue.
fn cloud(kind: &str) -> &'static str {
    match kind {
        "EC2NodeClass" | "NodeClass" => "aws",
        "AKSNodeClass" | "AzureNodeClass" => "azure",
        "GCPNodeClass" | "GCENodeClass" => "gcp",
        "KWOKNodeClass" => "kwok",
        _ => "other",
    }
}

/// The products that may be used and hold the run; where none does, how much is short.
fn fitting<'a>(
    nodes: &Nodes,
    needs: u64,
    smaller: &[Smaller],
    catalogue: &'a Catalogue,
) -> Result<Vec<&'a Product>, NoPlace> {
    let may =
        |product: &&Product| nodes.products.is_empty() || nodes.products.contains(&product.name);
    let allowed: Vec<&Product> = catalogue.products.iter().filter(may).collect();
    let fitting: Vec<&Product> =
        allowed.iter().copied().filter(|product| product.memory() >= needs).collect();
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let Some(largest) = allowed.last() else {
        let names: Vec<&str> = catalogue.products.iter().map(|one| one.name.as_str()).collect();
        let hint = format!("the catalogue has {}", names.join(", "));
        let message = "none of these products is in the catalogue";
        return Err(too_small("products", message.to_owned(), hint));
    };
    let message = format!(
        "the run needs a GPU of {}, and the largest, {}, has {}: {} are short",
        bytes(needs),
        largest.name,
        bytes(largest.memory()),
        bytes(needs.saturating_sub(largest.memory())),
    );
    let larger = catalogue.products.iter().find(|product| product.memory() >= needs);
    let hint = what_would_fit(nodes, smaller, largest, larger);
    Err(too_small("products", message, hint))
}

/// The cheapest change with which the largest product that may be used holds the run, and the product that
/// holds it as it is.
fn what_would_fit(
    nodes: &Nodes,
    smaller: &[Smaller],
    largest: &Product,
    larger: Option<&Product>,
) -> String {
    let allow = larger.map(|larger| format!("allow {} in compute.nodes.products", larger.name));
    if nodes.gpu_memory.is_some_and(|stated| stated > largest.memory()) {
        return allow.unwrap_or_else(|| "lower compute.nodes.gpuMemory".to_owned());
    }
    let then = |one: &Smaller| format!("{}: it then needs {}", one.change, bytes(one.gpu_memory));
    let change = smaller.iter().find(|one| one.gpu_memory <= largest.memory()).map(then);
    match (allow, change, smaller.last()) {
        (Some(allow), Some(change), _) => format!("{allow}, or {change}"),
        (Some(one), None, _) | (None, Some(one), _) => one,
        (None, None, Some(last)) => format!(
            "take a smaller base model: where you {} it still needs {}",
            last.change,
            bytes(last.gpu_memory)
        ),
        (None, None, None) => "take a smaller base model".to_owned(),
    }
}

fn too_small(field: &str, message: String, hint: String) -> NoPlace {
    let field = Some(format!("spec.compute.nodes.{field}"));
    NoPlace::TooSmall(Fault { field, message, hint: Some(hint), ..Fault::default() })
}

type Offer<'a> = (&'a Product, u32, Option<String>);

/// The products that the provisioner can give, with the GPUs of the smallest node and its type.
fn offers<'a>(
    provisioner: Provisioner,
    cloud: Option<&str>,
    gpus: u32,
    fitting: &[&'a Product],
) -> Result<Vec<Offer<'a>>, NoPlace> {
    let of_cloud = |cloud: &str| -> Vec<Offer<'a>> {
        let one = |product: &&'a Product| {
            let all = product.smallest_instances(gpus);
            let instance = all.get(cloud)?;
            Some((*product, instance.gpus, Some(instance.type_.clone())))
        };
        fitting.iter().filter_map(one).collect()
    };
    let (cloud, offers) = match (provisioner, cloud) {
        (Provisioner::Karpenter, cloud) => {
            let cloud = cloud.unwrap_or_default();
            (cloud, of_cloud(cloud))
        }
        (Provisioner::Gke, _) => {
            let with_word = of_cloud("gcp").into_iter().filter(|(one, ..)| one.gke.is_some());
            ("gcp", with_word.collect())
        }
        (Provisioner::Existing | Provisioner::Dra, _) => {
            return Ok(fitting.iter().map(|product| (*product, gpus, None)).collect());
        }
    };
    if offers.is_empty() {
        let names: Vec<&str> = fitting.iter().map(|one| one.name.as_str()).collect();
        let message = format!(
            "{} would hold the run, and the catalogue names no instance type of `{cloud}` with {gpus} of them",
            names.join(", ")
        );
        let hint = "add the type to the catalogue, or lower compute.gpus".to_owned();
        return Err(too_small("provisioner", message, hint));
    }
    Ok(offers)
}

fn reason(products: &[&Product], fewest: u32, gpus: u32, needs: u64) -> String {
    let Some(chosen) = products.first() else { return String::new() };
    let spare = if fewest > gpus {
        format!("; the smallest node there is has {fewest} of them")
    } else {
        String::new()
    };
    format!(
        "the smallest that holds the run: {} of {}{spare}",
        bytes(needs),
        bytes(chosen.memory())
    )
}

fn capacity_type(nodes: &Nodes, interruptions: u32) -> CapacityType {
    match nodes.capacity_type {
        CapacityType::SpotThenOnDemand if interruptions >= nodes.max_interruptions => {
            CapacityType::OnDemand
        }
        stated => stated,
    }
}

/// Whether a pod waits for a node that is there already, if anywhere.
pub(crate) fn waits(workspace: &Workspace, seen: &Seen<'_>, observed: &Observed) -> bool {
    // What makes nodes does not depend on how often they were taken away.
    let placed = placement(workspace, &Needs::default(), 0, seen, observed);
    matches!(placed, Some(Ok(Placement { provisioner: Provisioner::Existing, .. })))
}

/// Why no node of the cluster could ever take the run; `None` where one could, or none was looked at.
pub(crate) fn never_fits(placement: &Placement<'_>, nodes: &[NodeFacts]) -> Option<Trouble> {
    let needs = placement.needs.div_ceil(1 << 20);
    let memory = |node: &NodeFacts| {
        node.labels.get("nvidia.com/gpu.memory").and_then(|text| text.parse::<u64>().ok())
    };
    let of_gke = |node: &NodeFacts| {
        let word = node.labels.get("cloud.google.com/gke-accelerator");
        word.is_some_and(|word| placement.products.iter().any(|one| one.gke.as_ref() == Some(word)))
    };
    let could = |node: &&NodeFacts| {
        node.gpus >= placement.gpus
            && (memory(node).is_some_and(|mib| mib >= needs) || of_gke(node))
    };
    if nodes.iter().any(|node| could(&node)) {
        return None;
    }
    let mut by_memory: BTreeMap<u64, &str> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.gpus >= placement.gpus) {
        by_memory.insert(memory(node).unwrap_or_default(), &node.name);
    }
    let wanted = format!("{} with {} each", placement.gpus, bytes(placement.needs));
    let found = match by_memory.last_key_value() {
        Some((0, _)) => "no node has labels of GPU feature discovery".to_owned(),
        Some((mib, node)) => format!("the most is {} on {node}", bytes(mib << 20)),
        None => "no node has as many GPUs".to_owned(),
    };
    Some(Trouble {
        reason: Reason::NoNodeFits,
        message: format!(
            "no node of this cluster could ever take the run: it wants {wanted}, and {found}"
        ),
        hint: "add such a node, install GPU feature discovery, or use another provisioner"
            .to_owned(),
        is_final: false,
    })
}
