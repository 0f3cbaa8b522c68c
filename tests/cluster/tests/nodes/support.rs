//! One run in a namespace: its pods, its status, and what Karpenter holds for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::condition::READY;
use api::workspace::{AdapterStatus, FineTuneWorkspaceStatus, Phase, Resolved};
use api::{FineTuneWorkspace, Termination};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;
use testkit::registry::Registry;
use tests_cluster::karpenter::{Capacity, Karpenter, karpenter, now};
use tests_cluster::{Ending, Operator, Place, until};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(3);
/// Time that a node without a pod stays, and what it may take beside that.
pub(crate) const TTL: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(30);
/// A GPU of 23 GB holds this.
pub(crate) const SMALL: u64 = 16 << 30;

/// A namespace with an operator of its own beside the shared Karpenter.
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) karpenter: &'static Karpenter,
    pub(crate) operator: Operator,
}

impl Stage {
    pub(crate) async fn new(namespace: &str) -> Self {
        let place = Place::new(namespace).await.unwrap();
        let karpenter = karpenter(&place).await.unwrap();
        let operator = karpenter.operator(&place).unwrap();
        Self { place, karpenter, operator }
    }

    pub(crate) fn run<'a>(&'a self, name: &'a str) -> Run<'a> {
        Run { place: &self.place, name }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Karpenter's log ends with:\n{}", self.karpenter.log());
        }
    }
}

/// A workspace that asks for nodes of Karpenter's; `nodes` and `more` are fields.
pub(crate) fn workspace(name: &str, nodes: &str, more: &str) -> String {
    format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: {name}}}\nspec:\n  \
         baseModel: {{image: \"registry.example.com/models/llama:8b\"}}\n  \
         data: {{train: {{image: \"registry.example.com/data/reviews:1\"}}}}\n  \
         compute: {{nodes: {{ttlAfterIdle: {}s, {nodes}}}}}\n  {more}\n",
        TTL.as_secs()
    )
}

/// Where the adapter goes that [`push`] pushed, or nowhere in particular.
pub(crate) fn output(registry: Option<&Registry>) -> String {
    let host = registry.map_or_else(|| "registry.example.com".to_owned(), Registry::host);
    format!("output: {{image: \"{host}/team/reviews\"}}")
}

/// An adapter in a registry.
pub(crate) async fn push(registry: &Registry) -> AdapterStatus {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    std::fs::write(folder.path().join("adapter_model.safetensors"), "weights").unwrap();
    let image = oci::adapter_image(folder.path(), &BTreeMap::new()).unwrap();
    let reference = format!("{}/team/reviews:x", registry.host());
    let options = oci::Options::default();
    let pushed = oci::push::push(&image, &reference.parse().unwrap(), &options).await.unwrap();
    AdapterStatus { image: reference, digest: pushed.digest, size: Some(7) }
}

/// One workspace of a namespace.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) place: &'a Place,
    pub(crate) name: &'a str,
}

impl Run<'_> {
    /// Its live pod of a role, once a condition holds of it.
    pub(crate) async fn pod(&self, role: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        let labels =
            format!("{}={},{}={role}", plan::names::WORKSPACE, self.name, plan::names::ROLE);
        let of = ListParams::default().labels(&labels);
        let (start, mut every) = (Instant::now(), tokio::time::interval(ms(100)));
        loop {
            every.tick().await;
            let pods = self.place.pods.list(&of).await.unwrap().items;
            let live = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                !matches!(phase, Some("Succeeded" | "Failed"))
                    && pod.metadata.deletion_timestamp.is_none()
            };
            if let Some(pod) = pods.iter().find(|pod| live(pod) && holds(pod)) {
                return pod.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{} has no such pod of {role}", self.name);
        }
    }

    /// Preflight finds out what GPU memory the run needs.
    pub(crate) async fn preflight(&self, gpu_memory: u64) {
        let resolved = Resolved {
            examples: 900,
            training_tokens: 81_000,
            memory: gpu_memory,
            gpu_memory: Some(gpu_memory),
            seconds: 240,
            ..Resolved::default()
        };
        let report = Termination { resolved: Some(resolved), ..Termination::default() };
        let pod = self.pod("preflight", |_| true).await;
        self.end(&pod, Ending::well(report)).await;
    }

    /// The training pod once the scheduler has put it onto a node.
    pub(crate) async fn bound(&self) -> Pod {
        self.pod("train", |pod| node_of(pod).is_some()).await
    }

    /// The same, and it runs from now on.
    pub(crate) async fn runs(&self) -> Pod {
        let pod = self.bound().await;
        let state = json!({"running": {"startedAt": now()}});
        self.place.pod_status(&pod, "Running", state).await.unwrap();
        self.place.pods.get(&pod.name_any()).await.unwrap()
    }

    /// A pod ends.
    pub(crate) async fn end(&self, pod: &Pod, ending: Ending) {
        self.place.end(pod, ending).await.unwrap();
    }

    pub(crate) async fn status(&self) -> FineTuneWorkspaceStatus {
        self.place.workspaces.get(self.name).await.unwrap().status.unwrap_or_default()
    }

    /// The status once a condition holds of it.
    pub(crate) async fn until(
        &self,
        holds: impl Fn(&FineTuneWorkspaceStatus) -> bool + Send,
    ) -> FineTuneWorkspaceStatus {
        let holds = |workspace: Option<&FineTuneWorkspace>| {
            workspace.and_then(|workspace| workspace.status.as_ref()).is_some_and(&holds)
        };
        let found = until(&self.place.workspaces, self.name, holds).await.unwrap();
        found.unwrap().status.unwrap()
    }

    pub(crate) async fn reached(&self, phase: Phase) -> FineTuneWorkspaceStatus {
        self.until(|status| status.phase == Some(phase)).await
    }

    /// The name of its pool, once it is there.
    pub(crate) async fn pool(&self) -> String {
        let (start, mut every) = (Instant::now(), tokio::time::interval(ms(50)));
        loop {
            every.tick().await;
            if let Some(pool) = self.place.pool_of(self.name).await.unwrap() {
                return pool.name_any();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} has no pool: {:?}",
                self.name,
                self.status().await
            );
        }
    }

    pub(crate) async fn capacity(&self, pool: &str) -> Capacity {
        Capacity::of(&self.place.client, pool).await.unwrap()
    }

    /// Waits until nothing is left of a pool, which is to take no longer than the idle time and a little.
    pub(crate) async fn released(&self, pool: &str) -> Duration {
        let (start, mut every) = (Instant::now(), tokio::time::interval(ms(200)));
        loop {
            every.tick().await;
            let left = self.capacity(pool).await;
            if left.is_empty() {
                return start.elapsed();
            }
            assert!(start.elapsed() < TTL + SLACK, "{}: {left:?} are left", self.name);
        }
    }
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// A label of the only claim.
pub(crate) fn label<'a>(capacity: &'a Capacity, key: &str) -> &'a str {
    assert_eq!(capacity.claims.len(), 1, "{capacity:?}");
    capacity.claims[0].labels().get(key).map(String::as_str).unwrap_or_default()
}

/// Reason and message of a status.
pub(crate) fn ready(status: &FineTuneWorkspaceStatus) -> (&str, &str) {
    let ready = status.conditions.iter().find(|one| one.type_ == READY);
    ready.map(|one| (one.reason.as_str(), one.message.as_str())).unwrap_or_default()
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
