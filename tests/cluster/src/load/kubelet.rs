//! A kubelet's part for all pods at once: preflight pods end well, and some training pods run; the others
//! wait for a node for ever.

use anyhow::Result;
use api::Termination;
use api::workspace::Resolved;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::AT_ONCE;

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Kubelet(tokio::task::JoinHandle<()>);

impl Kubelet {
    /// Looks after all pods of workspaces. Those training pods run whose workspace has such a name.
    pub fn start(client: &Client, runs: fn(&str) -> bool) -> Self {
        let client = client.clone();
        Self(tokio::spawn(async move {
            let ours = watcher::Config::default().labels(plan::names::WORKSPACE);
            let pods = watcher(Api::all(client.clone()), ours).default_backoff().applied_objects();
            let due = pods.try_filter_map(|pod| {
                std::future::ready(Ok(next(&pod, runs).map(|status| (pod, status))))
            });
            let work = due.for_each_concurrent(AT_ONCE, async |due| {
                if let Ok((pod, status)) = due
                    && let Err(error) = set(&client, &pod, &status).await
                {
                    eprintln!("the stand-in of a kubelet: {error:#}");
                }
            });
            work.await;
        }))
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends a pod well, with a report.
pub(super) async fn end_well(client: &Client, pod: &Pod, report: &Termination) -> Result<()> {
    set(client, pod, &ended_well(report)).await
}

/// The status that a pending pod is to get.
fn next(pod: &Pod, runs: fn(&str) -> bool) -> Option<Value> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase.is_some_and(|phase| phase != "Pending") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let label = |name: &str| pod.labels().get(name).map(String::as_str).unwrap_or_default();
    match label(plan::names::ROLE) {
        "preflight" => Some(ended_well(&found())),
        "train" if runs(label(plan::names::WORKSPACE)) => {
            Some(status("Running", &json!({"running": {}})))
        }
        _ => None,
    }
}

/// What a preflight pod finds out.
fn found() -> Termination {
    let resolved = Resolved {
        examples: 900,
        training_tokens: 81_000,
        memory: 1 << 31,
        seconds: 240,
        ..Resolved::default()
    };
    Termination { resolved: Some(resolved), ..Termination::default() }
}

fn ended_well(report: &Termination) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let message = report.to_message();
    let end = json!({"exitCode": 0, "message": message, "startedAt": now, "finishedAt": now});
    status("Succeeded", &json!({"terminated": end}))
}

fn status(phase: &str, state: &Value) -> Value {
    let container = json!({"name": "trainer", "ready": phase == "Running", "restartCount": 0,
        "image": "registry.example.com/anneal/trainer:v1", "imageID": "", "state": state});
    let start = k8s_openapi::jiff::Timestamp::now().to_string();
    json!({"phase": phase, "startTime": start, "containerStatuses": [container]})
}

async fn set(client: &Client, pod: &Pod, status: &Value) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}
