//! The kinds that nodes are made with: what of them this cluster serves, and how they are reached. They
//! are not watched, as most clusters serve only some of them: they are looked at in a pass.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use plan::{ClusterFacts, NodeFacts, Pool};
use tokio::sync::Mutex;

/// Time after which it is asked again what the cluster serves: definitions may come and go.
const FRESH: Duration = Duration::from_secs(10);
/// Group of Karpenter's own kinds.
const KARPENTER: &str = "karpenter.sh";

/// A kind that nodes are made with.
struct Kind {
    name: &'static str,
    plural: &'static str,
    group: &'static str,
    version: &'static str,
    of_cluster: bool,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "NodePool",
        plural: "nodepools",
        group: KARPENTER,
        version: "v1",
        of_cluster: true,
    },
    Kind {
        name: "ComputeClass",
        plural: "computeclasses",
        group: "cloud.google.com",
        version: "v1",
        of_cluster: true,
    },
    Kind {
        name: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        group: "resource.k8s.io",
        version: "v1",
        of_cluster: false,
    },
];

impl Kind {
    fn is_served(&self, facts: &ClusterFacts) -> bool {
        match self.name {
            "NodePool" => facts.node_pools,
            "ComputeClass" => facts.compute_classes,
            _ => facts.resource_claims,
        }
    }

    fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        let Self { name, plural, group, version, of_cluster } = *self;
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{group}/{version}"),
            kind: name.to_owned(),
            plural: plural.to_owned(),
        };
        if of_cluster {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    }
}

/// How a kind is reached; `None` of one that is none of these.
pub(crate) fn api(client: &Client, kind: &str, namespace: &str) -> Option<Api<DynamicObject>> {
    KINDS.iter().find(|one| one.name == kind).map(|one| one.api(client, namespace))
}

/// What the cluster serves, asked for now and then.
#[derive(Debug, Default)]
pub(crate) struct Served(Mutex<Option<(Instant, ClusterFacts)>>);

impl Served {
    pub(crate) async fn facts(&self, client: &Client) -> Result<ClusterFacts, kube::Error> {
        let mut known = self.0.lock().await;
        if let Some((at, facts)) = &*known
            && at.elapsed() < FRESH
        {
            return Ok(facts.clone());
        }
        let facts = ask(client).await?;
        *known = Some((Instant::now(), facts.clone()));
        Ok(facts)
    }
}

async fn ask(client: &Client) -> Result<ClusterFacts, kube::Error> {
    let mut facts = ClusterFacts::default();
    for group in client.list_api_groups().await?.groups {
        let is_ours = KINDS.iter().any(|one| one.group == group.name);
        if !is_ours && !is_of_a_cloud(&group.name) {
            continue;
        }
        let preferred = group.preferred_version.as_ref().map(|one| one.group_version.clone());
        let ours = KINDS.iter().find(|one| one.group == group.name);
        let version = ours.map(|one| format!("{}/{}", one.group, one.version)).or(preferred);
        let is_there =
            |version: &String| group.versions.iter().any(|one| one.group_version == *version);
        let Some(version) = version.filter(is_there) else { continue };
        for resource in client.list_api_group_resources(&version).await?.resources {
            match (group.name.as_str(), resource.kind.as_str()) {
                (KARPENTER, "NodePool") => facts.node_pools = true,
                ("cloud.google.com", "ComputeClass") => facts.compute_classes = true,
                ("resource.k8s.io", "ResourceClaimTemplate") => facts.resource_claims = true,
                (group, kind) if kind.ends_with("NodeClass") && !resource.name.contains('/') => {
                    facts.node_classes.push((group.to_owned(), kind.to_owned()));
                }
                _ => {}
            }
        }
    }
    Ok(facts)
}

/// Karpenter's providers have groups such as `karpenter.k8s.aws`; EKS has one of its own.
fn is_of_a_cloud(group: &str) -> bool {
    group != KARPENTER && (group.starts_with("karpenter.") || group == "eks.amazonaws.com")
}

/// What was made of the kinds that are served, by a label selector.
pub(crate) async fn list(
    client: &Client,
    facts: &ClusterFacts,
    namespace: &str,
    labels: &str,
) -> Result<Vec<Pool>, kube::Error> {
    let mut found = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.is_served(facts)) {
        let all = kind.api(client, namespace).list(&ListParams::default().labels(labels)).await;
        match all {
            Ok(all) => found.extend(all.items.into_iter().map(|object| pool(kind, object))),
            // The definition is gone, and with it what it defined; or this operator may not look beyond
            // its namespace, and is refused when it applies something.
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 403 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn pool(kind: &Kind, mut object: DynamicObject) -> Pool {
    object.metadata.managed_fields = None;
    Pool {
        api_version: format!("{}/{}", kind.group, kind.version),
        kind: kind.name.to_owned(),
        metadata: object.metadata,
        spec: object.data.get_mut("spec").map(serde_json::Value::take).unwrap_or_default(),
    }
}

/// A node; `None` of one that is gone.
pub(crate) async fn node(client: &Client, name: &str) -> Result<Option<NodeFacts>, kube::Error> {
    Ok(Api::<Node>::all(client.clone()).get_opt(name).await?.map(of_node))
}

/// The nodes that have GPUs.
pub(crate) async fn gpu_nodes(client: &Client) -> Result<Vec<NodeFacts>, kube::Error> {
    let all = Api::<Node>::all(client.clone()).list(&ListParams::default().match_any()).await?;
    Ok(all.items.into_iter().map(of_node).filter(|node| node.gpus > 0).collect())
}

fn of_node(node: Node) -> NodeFacts {
    let status = node.status.as_ref();
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let gpus = allocatable.and_then(|all| all.get("nvidia.com/gpu")?.0.parse().ok());
    NodeFacts {
        name: node.name_any(),
        gpus: gpus.unwrap_or_default(),
        created: node.metadata.creation_timestamp,
        labels: node.metadata.labels.unwrap_or_default(),
    }
}
