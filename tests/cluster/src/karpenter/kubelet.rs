//! A kubelet's part on nodes that are objects alone: says that they are ready, and ends pods that are
//! being deleted. How the other pods stand is for the tests to say.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use testkit::cluster::{ControlPlane, User};

use crate::client;
use crate::load::AT_ONCE;

/// Taint of a node that is not ready yet.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The exit code of a trainer that was told to end.
const TERMINATED: i32 = 143;

/// Looks after all nodes and all pods of workspaces until this process ends: on a thread of its own, as each
/// test has a runtime that ends with it.
pub(super) fn start(plane: &'static ControlPlane) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = client(plane, User::Admin).await?;
            tokio::join!(nodes(&client), pods(&client));
            anyhow::Ok(())
        })
    });
}

async fn nodes(client: &Client) {
    let fake = watcher::Config::default().labels("kwok.x-k8s.io/node=fake");
    let nodes = watcher(Api::<Node>::all(client.clone()), fake);
    let nodes = nodes.default_backoff().applied_objects();
    let due = nodes.try_filter(|node| std::future::ready(!is_ready(node)));
    let work = due.for_each_concurrent(AT_ONCE, async |due| {
        if let Ok(node) = due
            && let Err(error) = make_ready(client, &node).await
        {
            eprintln!("the stand-in of a kubelet, of {}: {error:#}", node.name_any());
        }
    });
    work.await;
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

async fn make_ready(client: &Client, node: &Node) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let (name, now) = (node.name_any(), now());
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let left: Vec<_> = taints.iter().filter(|taint| taint.key != NOT_READY).collect();
    if left.len() < taints.len() {
        // What the node lifecycle controller takes away from a node that is ready. Where Karpenter has
        // changed the node by now, its change is another reason to come here.
        let read = json!({"resourceVersion": node.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": read, "spec": {"taints": left}}));
        return match api.patch(&name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
            answer => absent(answer),
        };
    }
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready",
        "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": now,
        "lastTransitionTime": now}]}});
    absent(api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(ready)).await)
}

async fn pods(client: &Client) {
    let ours = watcher::Config::default().labels(plan::names::WORKSPACE);
    let pods = watcher(Api::<Pod>::all(client.clone()), ours);
    let pods = pods.default_backoff().applied_objects();
    let due = pods.try_filter(|pod| {
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        std::future::ready(pod.metadata.deletion_timestamp.is_some() && is_bound)
    });
    let work = due.for_each_concurrent(AT_ONCE, async |due| {
        if let Ok(pod) = due
            && let Err(error) = end(client, &pod).await
        {
            eprintln!("the stand-in of a kubelet, of {}: {error:#}", pod.name_any());
        }
    });
    work.await;
}

/// As after `SIGTERM`: the trainer keeps a checkpoint and ends.
async fn end(client: &Client, pod: &Pod) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        let state = json!({"terminated": {"exitCode": TERMINATED, "reason": "Error",
            "startedAt": started(pod), "finishedAt": now()}});
        let container = json!({"name": "trainer", "ready": false, "restartCount": 0,
            "image": "i", "imageID": "", "state": state});
        let status = json!({"status": {"phase": "Failed", "containerStatuses": [container]}});
        let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        absent(patched)?;
    }
    absent(api.delete(&name, &DeleteParams::default().grace_period(0)).await)
}

/// What is gone by now needs nothing.
fn absent<T>(answer: Result<T, kube::Error>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// When the pod's container started, or now.
pub fn started(pod: &Pod) -> String {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let state = status.and_then(|all| all.first()?.state.as_ref());
    let since = state.and_then(|state| state.running.as_ref()?.started_at.clone());
    since.map_or_else(now, |since| since.0.to_string())
}

/// This moment, as objects have it.
pub fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().to_string()
}
