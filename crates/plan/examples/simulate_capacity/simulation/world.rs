//! One workspace and its objects as a cluster would have them. What should be is decided by `plan`; this
//! does what API server, Job controller, scheduler, provisioner and kubelet do with it.

use std::collections::BTreeMap;

use api::workspace::{GpuSeconds, Phase, Resolved};
use api::{FineTuneWorkspace, Termination, TrainerStatus};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use plan::{NodeFacts, Object, Observed, names};
use serde_json::{Value, json};

use super::trace::Arrival;

/// The moment at which the trace begins.
const EPOCH: i64 = 1_800_000_000;
/// The one node that a run has at a time.
const NODE: &str = "node";
/// More passes than any change needs.
const PASSES: usize = 20;

/// A workspace and what there is of it.
#[derive(Debug)]
pub(crate) struct World {
    raw: FineTuneWorkspace,
    seen: Observed,
    node: Option<NodeFacts>,
}

impl World {
    /// A workspace in a queue, just made.
    pub(crate) fn new(number: usize) -> Self {
        let raw = json!({
            "apiVersion": "anneal.dev/v1alpha1", "kind": "FineTuneWorkspace",
            "metadata": {"name": format!("run-{number}"), "namespace": "team", "generation": 1,
                "uid": format!("uid-{number}")},
            "spec": {
                "baseModel": {"image": "registry.example.com/models/base:1"},
                "data": {"train": {"image": "registry.example.com/data/set:1"}},
                "compute": {"queueName": "team", "nodes": {}},
                "limits": {"retries": 0, "stall": format!("{}s", super::assumptions::STALL)},
                "output": {"image": "registry.example.com/team/tuned"},
            },
        });
        let seen = json!({
            "now": time(0),
            "settings": {"trainerImage": "trainer:1"},
            "registry": "Found",
            "cluster": {"nodePools": true, "nodeClasses": [["karpenter.k8s.gcp", "GCENodeClass"]]},
        });
        let seen = serde_json::from_value(seen).expect("the text above is what may be seen");
        let raw = serde_json::from_value(raw).expect("the text above is a workspace");
        Self { raw, seen, node: None }
    }

    /// What the operator does at a moment: looks, decides and acts until nothing is left to do.
    pub(crate) fn operate(&mut self, now: u64) {
        for _ in 0..PASSES {
            self.seen.now = time(now);
            let asked = plan::questions(&self.raw, &self.seen).nodes;
            self.seen.nodes = asked.into_iter().map(|name| (name, self.node.clone())).collect();
            let plan = plan::plan(&self.raw, &self.seen);
            let rests = plan.delete.is_empty()
                && plan.apply.is_empty()
                && plan.finalizer.is_none()
                && self.raw.status.as_ref() == Some(&plan.status);
            if rests {
                return;
            }
            for removal in &plan.delete {
                self.remove(removal.kind, &removal.name);
            }
            if let Some(wanted) = plan.finalizer {
                let all = if wanted { vec![names::FINALIZER.to_owned()] } else { Vec::new() };
                self.raw.metadata.finalizers = Some(all);
            }
            for object in plan.apply {
                self.put(object, now);
            }
            self.raw.status = Some(plan.status);
        }
    }

    fn remove(&mut self, kind: &str, name: &str) {
        let is_it = |found: Option<&String>| found.is_some_and(|found| found == name);
        match kind {
            "Job" => {
                self.seen.jobs.retain(|job| !is_it(job.metadata.name.as_ref()));
                let owner = format!("uid-of-{name}");
                self.seen.pods.retain(|pod| owner_of(pod) != Some(&owner));
            }
            "ConfigMap" => self.seen.config_maps.retain(|map| !is_it(map.metadata.name.as_ref())),
            _ => self.seen.pools.retain(|pool| !is_it(pool.metadata.name.as_ref())),
        }
    }

    fn put(&mut self, object: Object, now: u64) {
        match object {
            Object::ConfigMap(map) => self.seen.config_maps.push(*map),
            Object::Pool(pool) => {
                self.seen.pools.clear();
                self.seen.pools.push(*pool);
            }
            Object::Job(mut job) => {
                let name = job.metadata.name.clone().unwrap_or_default();
                let jobs = &mut self.seen.jobs;
                let old = jobs.iter().position(|old| old.metadata.name == job.metadata.name);
                let old = old.map(|index| jobs.remove(index));
                let made = old.as_ref().and_then(|old| old.metadata.creation_timestamp.clone());
                job.metadata.creation_timestamp = made.or_else(|| Some(time(now)));
                job.metadata.uid = Some(format!("uid-of-{name}"));
                job.status = old.and_then(|old| old.status);
                jobs.push(*job);
            }
        }
    }

    fn job(&mut self, role: names::Role) -> Option<&mut Job> {
        let is_of = |job: &&mut Job| {
            let labels = job.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(names::ROLE)).is_some_and(|it| it == role.as_str())
        };
        self.seen.jobs.iter_mut().find(is_of)
    }

    /// Whether the training Job waits for its queue.
    pub(crate) fn is_held(&mut self) -> bool {
        let job = self.job(names::Role::Train);
        job.and_then(|job| job.spec.as_ref()?.suspend) == Some(true)
    }

    /// What Kueue does: the Job may run, and its pod is made.
    pub(crate) fn admit(&mut self, now: u64) {
        let Some(job) = self.job(names::Role::Train) else { return };
        edit(job, |job| {
            job["spec"]["suspend"] = json!(false);
            job["status"] = json!({"startTime": time(now), "active": 1});
        });
        let owner = job.metadata.uid.clone().unwrap_or_default();
        self.seen.pods.push(pod("pod", &owner, now));
    }

    /// The preflight pod has ended, well or with what it found.
    pub(crate) fn preflight_ends(&mut self, now: u64, arrival: &Arrival, is_faulty: bool) {
        let Some(job) = self.job(names::Role::Preflight) else { return };
        let owner = job.metadata.uid.clone().unwrap_or_default();
        finish(job, if is_faulty { "Failed" } else { "Complete" }, now);
        let resolved = Resolved {
            memory: arrival.memory,
            gpu_memory: Some(arrival.memory),
            seconds: arrival.training,
            ..Resolved::default()
        };
        let report = Termination { resolved: Some(resolved), ..Termination::default() };
        let mut pod = pod("preflight", &owner, now);
        end(&mut pod, if is_faulty { 10 } else { 0 }, &report, now);
        self.seen.pods.push(pod);
    }

    /// Whether there is a pool, and what the cluster makes for it.
    pub(crate) fn has_pool(&self) -> bool {
        !self.seen.pools.is_empty()
    }

    pub(crate) fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// The provisioner has asked the cloud for a node. It is paid for from now on.
    pub(crate) fn node_begins(&mut self, now: u64) {
        let labels = BTreeMap::from([(names::POOL.to_owned(), "pool".to_owned())]);
        self.node =
            Some(NodeFacts { name: NODE.to_owned(), created: Some(time(now)), labels, gpus: 1 });
    }

    /// The pod is on its node; its container runs once the images are there.
    pub(crate) fn node_is_ready(&mut self, now: u64) {
        self.training_pod(|pod| {
            pod["spec"]["nodeName"] = json!(NODE);
            pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True",
                "lastTransitionTime": time(now)}]);
        });
    }

    pub(crate) fn container_starts(&mut self, now: u64) {
        self.training_pod(|pod| {
            pod["status"]["phase"] = json!("Running");
            pod["status"]["containerStatuses"] =
                container(&json!({"running": {"startedAt": time(now)}}));
        });
    }

    /// The trainer has ended.
    pub(crate) fn training_ends(&mut self, now: u64, exit: i32) {
        let adapter = json!({"image": "registry.example.com/team/tuned:1",
            "digest": format!("sha256:{}", "1".repeat(64))});
        let adapter = serde_json::from_value(adapter).ok().filter(|_| exit == 0);
        let report = Termination { adapter, ..Termination::default() };
        for pod in self.seen.pods.iter_mut().filter(|pod| is_training(pod)) {
            end(pod, exit, &report, now);
        }
        if let Some(job) = self.job(names::Role::Train) {
            finish(job, if exit == 0 { "Complete" } else { "Failed" }, now);
        }
    }

    /// The trainer tells that it has done nothing for so long, and the Job controller does what the
    /// operator makes of that.
    pub(crate) fn hangs(&mut self, now: u64, idle: u64) {
        self.seen.trainer =
            Some(TrainerStatus { idle_seconds: Some(idle), ..TrainerStatus::default() });
        self.operate(now);
        self.seen.trainer = None;
        self.training_ends(now, 143);
    }

    /// The user stops it.
    pub(crate) fn suspend(&mut self) {
        self.raw.spec.suspend = true;
        self.raw.metadata.generation = Some(2);
    }

    /// The node is gone.
    pub(crate) fn node_ends(&mut self) {
        self.node = None;
    }

    /// The status's own account.
    pub(crate) fn gpu_seconds(&self) -> GpuSeconds {
        let capacity = self.raw.status.as_ref().and_then(|status| status.capacity.as_ref());
        capacity.map(|capacity| capacity.gpu_seconds.clone()).unwrap_or_default()
    }

    pub(crate) fn product(&self) -> Option<&str> {
        self.raw.status.as_ref()?.capacity.as_ref()?.product.as_deref()
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        self.raw.status.as_ref()?.phase
    }

    fn training_pod(&mut self, change: impl Fn(&mut Value)) {
        for pod in self.seen.pods.iter_mut().filter(|pod| is_training(pod)) {
            edit(pod, &change);
        }
    }
}

fn owner_of(pod: &Pod) -> Option<&String> {
    pod.metadata.owner_references.as_ref()?.first().map(|owner| &owner.uid)
}

fn is_training(pod: &Pod) -> bool {
    pod.metadata.name.as_deref() == Some("pod")
}

fn pod(name: &str, owner: &str, now: u64) -> Pod {
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": owner});
    let value = json!({
        "metadata": {"name": name, "creationTimestamp": time(now), "ownerReferences": [owner]},
        "spec": {"containers": []},
        "status": {"phase": "Pending"},
    });
    serde_json::from_value(value).expect("the text above is a pod")
}

fn end(pod: &mut Pod, exit: i32, report: &Termination, now: u64) {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let state = status.and_then(|all| all.first()?.state.as_ref()?.running.as_ref());
    let started = state.and_then(|running| running.started_at.clone());
    edit(pod, |pod| {
        let state = json!({"terminated": {"exitCode": exit, "message": report.to_message(),
            "startedAt": started, "finishedAt": time(now)}});
        pod["status"]["phase"] = json!(if exit == 0 { "Succeeded" } else { "Failed" });
        pod["status"]["containerStatuses"] = container(&state);
    });
}

fn container(state: &Value) -> Value {
    json!([{"name": "trainer", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
        "state": state}])
}

fn finish(job: &mut Job, condition: &str, now: u64) {
    edit(job, |job| {
        let reason = (condition == "Failed").then_some("PodFailurePolicy");
        job["status"]["conditions"] = json!([{"type": condition, "status": "True",
            "reason": reason, "message": "", "lastTransitionTime": time(now)}]);
    });
}

/// Changes an object by its JSON.
fn edit<T: serde::Serialize + serde::de::DeserializeOwned>(
    object: &mut T,
    change: impl Fn(&mut Value),
) {
    let mut value = serde_json::to_value(&*object).expect("an object is JSON");
    change(&mut value);
    *object = serde_json::from_value(value).expect("it is an object still");
}

fn time(seconds: u64) -> Time {
    let at = EPOCH + i64::try_from(seconds).unwrap_or(i64::MAX - EPOCH);
    Time(Timestamp::from_second(at).unwrap_or(Timestamp::MAX))
}
