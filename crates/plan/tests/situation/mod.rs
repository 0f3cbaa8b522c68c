//! Reads a situation in short form, and makes of it the Jobs and pods that a cluster would have.

use std::collections::BTreeMap;

use api::condition::Reason;
use api::workspace::FineTuneWorkspaceSpec;
use api::{FineTuneWorkspace, Termination, TrainerStatus};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plan::{
    Catalogue, ClusterFacts, NodeFacts, Object, Observed, Obstacle, Pool, RegistryAnswer,
    SecretState, Settings, plan,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// `observed.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "a table of what may hold")]
pub(crate) struct Situation {
    /// Stands before the present one: its plan's status is the workspace's.
    pub(crate) before: Option<Box<Self>>,
    /// The spec at that time, where it was another one.
    pub(crate) spec_before: Option<FineTuneWorkspaceSpec>,
    /// The spec was edited since `before`.
    pub(crate) edited: bool,
    /// Minutes since the workspace was made.
    pub(crate) minutes: i64,
    pub(crate) preflight: Option<JobNow>,
    pub(crate) trainings: Vec<JobNow>,
    /// A training Job of an earlier revision that still runs.
    pub(crate) earlier_revision: bool,
    pub(crate) secrets: BTreeMap<String, SecretState>,
    pub(crate) refusal: Option<String>,
    /// The kubelet's word on each pod of the training that it killed.
    pub(crate) killing: Option<String>,
    pub(crate) trainer: Option<TrainerStatus>,
    pub(crate) registry: RegistryAnswer,
    /// What nodes could be made with.
    pub(crate) cluster: ClusterFacts,
    /// What was made for the nodes is there.
    pub(crate) pooled: bool,
    /// The workspace is being deleted, and has our finalizer.
    pub(crate) deleted: bool,
    /// Minutes after which each node was made; `null` of one that is gone.
    pub(crate) nodes: BTreeMap<String, Option<i64>>,
    pub(crate) gpu_nodes: Option<Vec<NodeFacts>>,
    /// Why an object could not be applied.
    pub(crate) obstacle: Option<(Reason, String)>,
}

/// A Job and its pods.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct JobNow {
    /// `Suspended`, `Active`, `Complete` or `Failed`.
    pub(crate) state: String,
    /// Reason of the `Failed` condition.
    pub(crate) reason: Option<String>,
    /// The operator ended it, because it showed no sign of work.
    pub(crate) stalled: bool,
    /// Minutes from its start to its end.
    pub(crate) took: Option<i64>,
    /// A deadline in seconds that is not the spec's.
    pub(crate) deadline: Option<i64>,
    pub(crate) pods: Vec<PodNow>,
}

/// A pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PodNow {
    pub(crate) exit: Option<i32>,
    /// Reason of the terminated state, or of the pod where it has no container.
    pub(crate) reason: Option<String>,
    pub(crate) report: Option<Termination>,
    /// A termination message that is no report.
    pub(crate) log: Option<String>,
    /// Its node.
    pub(crate) node: Option<String>,
    /// It was evicted, as when its node is taken away.
    pub(crate) disrupted: bool,
    /// The scheduler's word.
    pub(crate) unschedulable: Option<String>,
    /// Reason and message of the waiting container.
    pub(crate) waiting: Option<(String, String)>,
}

const START: &str = "2026-11-24T12:00:00Z";

/// The workspace with its status, and what is observed.
pub(crate) fn stage(
    mut workspace: FineTuneWorkspace,
    now: &Situation,
) -> (FineTuneWorkspace, Observed) {
    workspace.metadata.namespace = Some("team".to_owned());
    workspace.metadata.uid = Some("uid-of-the-workspace".to_owned());
    workspace.metadata.generation = Some(1);
    if let Some(before) = &now.before {
        let spec = workspace.spec.clone();
        workspace.spec = now.spec_before.clone().unwrap_or_else(|| spec.clone());
        let (raw, observed) = stage(workspace, before);
        workspace = raw;
        workspace.status = Some(plan(&workspace, &observed).status);
        workspace.spec = spec;
    }
    if now.edited {
        workspace.metadata.generation = Some(2);
    }
    if now.pooled || now.deleted {
        workspace.metadata.finalizers = Some(vec![plan::names::FINALIZER.to_owned()]);
    }
    let observed = observed(&workspace, now);
    if now.deleted {
        workspace.metadata.deletion_timestamp = Some(observed.now.clone());
    }
    (workspace, observed)
}

fn observed(workspace: &FineTuneWorkspace, now: &Situation) -> Observed {
    let start: Time = serde_json::from_value(json!(START)).unwrap();
    let mut observed = Observed {
        now: Time(start.0 + k8s_openapi::jiff::SignedDuration::from_mins(now.minutes)),
        settings: Settings {
            trainer_image: "ghcr.io/anneal/trainer:v1".to_owned(),
            server_image: String::new(),
            vllm_image: String::new(),
            namespace: None,
            image_pull_secrets: Vec::new(),
            plain_http: Vec::new(),
            hub_endpoint: None,
        },
        config_maps: Vec::new(),
        jobs: Vec::new(),
        pods: Vec::new(),
        secrets: BTreeMap::new(),
        refusal: None,
        killings: BTreeMap::new(),
        trainer: None,
        registry: RegistryAnswer::NotAsked,
        obstacle: None,
        cluster: ClusterFacts::default(),
        pools: Vec::new(),
        nodes: BTreeMap::new(),
        gpu_nodes: None,
        catalogue: Catalogue::built_in(),
    };
    observed.cluster = now.cluster.clone();
    // The Jobs are those that the operator itself would have made.
    let mut unsuspended = workspace.clone();
    unsuspended.spec.suspend = false;
    unsuspended.status = None;
    if let Some(job) = &now.preflight {
        add(&mut observed, &unsuspended, job);
    }
    for job in &now.trainings {
        add(&mut observed, &unsuspended, job);
    }
    if now.earlier_revision {
        let mut earlier = unsuspended.clone();
        earlier.spec.data.system = Some("an earlier one".to_owned());
        let mut there = Observed { jobs: Vec::new(), pods: Vec::new(), ..observed.clone() };
        there.config_maps.clear();
        add(&mut there, &earlier, &JobNow { state: "Active".to_owned(), ..JobNow::default() });
        observed.jobs.extend(there.jobs);
        observed.config_maps.extend(there.config_maps);
    }
    if now.pooled {
        // What is there was made while the first pod was awaited.
        let mut earlier = unsuspended.clone();
        earlier.metadata.finalizers = None;
        let mut there = observed.clone();
        there.pods.clear();
        let last = there.jobs.last_mut().unwrap();
        last.status = None;
        last.spec.as_mut().unwrap().suspend = Some(false);
        observed.pools.extend(plan(&earlier, &there).apply.into_iter().filter_map(|object| {
            match object {
                Object::Pool(pool) => Some(Pool::clone(&pool)),
                Object::Job(_) | Object::ConfigMap(_) => None,
            }
        }));
    }
    for (name, made) in &now.nodes {
        let made = made.map(|minutes| NodeFacts {
            name: name.clone(),
            created: Some(Time(start.0 + k8s_openapi::jiff::SignedDuration::from_mins(minutes))),
            labels: BTreeMap::from([
                ("node.kubernetes.io/instance-type".to_owned(), "gpu-1x".to_owned()),
                (plan::names::POOL.to_owned(), "a".to_owned()),
            ]),
            gpus: 1,
        });
        observed.nodes.insert(name.clone(), made);
    }
    observed.gpu_nodes.clone_from(&now.gpu_nodes);
    observed.secrets.clone_from(&now.secrets);
    observed.refusal.clone_from(&now.refusal);
    let of_pods = |word: &String| {
        let names = observed.pods.iter().filter_map(|pod| pod.metadata.name.clone());
        names.map(|name| (name, word.clone())).collect()
    };
    let mut killings: BTreeMap<_, _> = now.killing.as_ref().map(of_pods).unwrap_or_default();
    // It is known where it was asked.
    let asked = plan::questions(workspace, &observed).killed;
    killings.retain(|pod, _| asked.contains(pod));
    observed.killings = killings;
    observed.trainer.clone_from(&now.trainer);
    observed.registry.clone_from(&now.registry);
    let soon = Time(observed.now.0 + k8s_openapi::jiff::SignedDuration::from_secs(30));
    observed.obstacle =
        now.obstacle.clone().map(|(reason, what)| Obstacle { reason, what, until: soon });
    observed
}

/// Adds what the plan for the situation so far would add, in the state that is told.
fn add(observed: &mut Observed, workspace: &FineTuneWorkspace, now: &JobNow) {
    for object in plan(workspace, observed).apply {
        match object {
            Object::ConfigMap(map) => observed.config_maps.push(ConfigMap::clone(&map)),
            Object::Pool(_) => {}
            Object::Job(job) => {
                let uid = format!("uid-{}", observed.jobs.len());
                let name = job.metadata.name.clone().unwrap();
                for (index, pod) in now.pods.iter().enumerate() {
                    observed.pods.push(make_pod(&format!("{name}-{index}"), &uid, pod));
                }
                observed.jobs.push(make_job(*job, &uid, now));
            }
        }
    }
}

fn make_job(job: Job, uid: &str, now: &JobNow) -> Job {
    let mut value = serde_json::to_value(job).unwrap();
    value["metadata"]["uid"] = json!(uid);
    value["spec"]["suspend"] = json!(now.state == "Suspended");
    if now.stalled {
        value["metadata"]["annotations"] = json!({plan::names::STALLED: "30m"});
        value["spec"]["activeDeadlineSeconds"] = json!(1);
    }
    if let Some(deadline) = now.deadline {
        value["spec"]["activeDeadlineSeconds"] = json!(deadline);
    }
    if matches!(now.state.as_str(), "Complete" | "Failed") {
        value["status"] = json!({"conditions": [
            {"type": now.state, "status": "True", "reason": now.reason, "message": "the Job's words"},
        ]});
    }
    if let Some(minutes) = now.took {
        let start: Time = serde_json::from_value(json!(START)).unwrap();
        let end = Time(start.0 + k8s_openapi::jiff::SignedDuration::from_mins(minutes));
        value["status"]["startTime"] = json!(start);
        value["status"]["conditions"][0]["lastTransitionTime"] = json!(end);
    }
    serde_json::from_value(value).unwrap()
}

fn make_pod(name: &str, owner: &str, now: &PodNow) -> Pod {
    let report = now.report.as_ref().map(Termination::to_message).or(now.log.clone());
    let state = match (now.exit, &now.waiting) {
        (Some(exit), _) => json!({"terminated": {
            "exitCode": exit, "reason": now.reason, "message": report, "finishedAt": START}}),
        (None, Some((reason, message))) => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        (None, None) => json!({"running": {}}),
    };
    let phase = match now.exit {
        Some(0) => "Succeeded",
        Some(_) => "Failed",
        None if now.reason.is_some() => "Failed",
        None if now.waiting.is_some() || now.unschedulable.is_some() => "Pending",
        None => "Running",
    };
    let mut status = json!({"phase": phase, "startTime": START});
    if now.exit.is_some() || now.reason.is_none() {
        status["containerStatuses"] = json!([{"name": "trainer", "ready": false,
            "restartCount": 0, "image": "i", "imageID": "", "state": state}]);
    } else {
        status["reason"] = json!(now.reason);
    }
    if let Some(message) = &now.unschedulable {
        status["containerStatuses"] = Value::Null;
        status["conditions"] =
            json!([{"type": "PodScheduled", "status": "False", "message": message}]);
    }
    if now.disrupted {
        status["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    }
    if now.node.is_some() {
        let soon = "2026-11-24T12:01:00Z";
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": soon}));
        status["conditions"] = json!(conditions);
    }
    serde_json::from_value(json!({
        "spec": {"nodeName": now.node, "containers": []},
        "metadata": {"name": name, "creationTimestamp": START, "ownerReferences":
            [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner}]},
        "status": status,
    }))
    .unwrap()
}

/// Carries out the applying of an object, as the API server would.
pub(crate) fn put(observed: &mut Observed, object: Object) {
    match object {
        Object::ConfigMap(map) => observed.config_maps.push(*map),
        Object::Pool(pool) => {
            observed.pools.retain(|old| old.metadata.name != pool.metadata.name);
            observed.pools.push(*pool);
        }
        Object::Job(mut job) => {
            let name = job.metadata.name.clone();
            let old = observed.jobs.iter().find(|old| old.metadata.name == name).cloned();
            observed.jobs.retain(|old| old.metadata.name != name);
            job.metadata.uid = old.as_ref().and_then(|old| old.metadata.uid.clone());
            job.metadata.uid.get_or_insert_with(|| format!("uid-{}", observed.jobs.len()));
            job.status = old.and_then(|old| old.status);
            observed.jobs.push(*job);
        }
    }
}
