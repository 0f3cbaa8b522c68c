//! Reads a situation of a server in short form, and makes of it the objects and pods that a cluster would have.

use std::collections::BTreeMap;

use api::ModelServer;
use api::condition::ServerReason;
use api::model_server::ModelServerSpec;
use api::workspace::Published;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use plan::server::declared::Declaration;
use plan::server::observed::{HeldAdapter, HeldState, Holding, ServerObserved, ServerObstacle};
use plan::{ServerObject, ServerPlan, Settings, plan_server};
use serde::Deserialize;
use serde_json::json;

/// `observed.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Situation {
    /// Stands before the present one: its plan was carried out, and its status is the server's.
    pub(crate) before: Option<Box<Self>>,
    /// The spec at that time, where it was another one.
    pub(crate) spec_before: Option<ModelServerSpec>,
    /// Seconds since the server was made.
    pub(crate) seconds: i64,
    /// Digits of the digests that workspaces have published, by revision, the newest at the end.
    pub(crate) workspaces: BTreeMap<String, Vec<(String, String)>>,
    /// Why revisions failed their gate.
    pub(crate) gate_failed: BTreeMap<String, String>,
    pub(crate) pods: Vec<PodNow>,
    /// The Deployment's pods are not all of the last template.
    pub(crate) rolling: bool,
    /// What the autoscaler has set.
    pub(crate) scaled: Option<i32>,
    /// Why the Deployment's pods are refused.
    pub(crate) refused: Option<String>,
    pub(crate) obstacle: Option<(ServerReason, String)>,
}

/// A pod; ready and up to date unless something else is said.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PodNow {
    /// It runs and is not ready.
    pub(crate) starting: bool,
    /// It goes by an older declaration.
    pub(crate) behind: bool,
    /// Why it does not answer.
    pub(crate) silent: Option<String>,
    pub(crate) adapters: BTreeMap<String, AdapterNow>,
    /// The container of which the rest tells; `server` unless something else is said.
    pub(crate) container: Option<String>,
    /// Reason and message of the waiting container.
    pub(crate) waiting: Option<(String, String)>,
    /// The last words of a container that ended.
    pub(crate) ended: Option<String>,
    pub(crate) unschedulable: Option<String>,
}

/// What a pod says of an adapter: digits of its digests.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AdapterNow {
    pub(crate) state: HeldState,
    pub(crate) digest: Option<String>,
    pub(crate) wanted: Option<String>,
    pub(crate) reason: Option<String>,
}

fn digest(digits: &str) -> String {
    format!("sha256:{}", digits.repeat(64 / digits.len()))
}

/// The server with its status, and what is observed.
pub(crate) fn stage(mut server: ModelServer, now: &Situation) -> (ModelServer, ServerObserved) {
    server.metadata.namespace = Some("team".to_owned());
    server.metadata.uid = Some("uid-of-the-server".to_owned());
    server.metadata.generation = Some(1);
    let start: Time = serde_json::from_value(json!("2026-11-24T12:00:00Z")).unwrap();
    let mut observed = ServerObserved {
        now: start.clone(),
        settings: Settings {
            trainer_image: String::new(),
            server_image: "ghcr.io/anneal/server:v1".to_owned(),
            vllm_image: "docker.io/vllm/vllm-openai:v0.26.0".to_owned(),
            namespace: Some("anneal-system".to_owned()),
            image_pull_secrets: Vec::new(),
            plain_http: Vec::new(),
            hub_endpoint: None,
        },
        deployment: None,
        config_map: None,
        service: None,
        budget: None,
        policy: None,
        autoscaler: None,
        pods: Vec::new(),
        workspaces: BTreeMap::new(),
        held: BTreeMap::new(),
        obstacle: None,
    };
    if let Some(before) = &now.before {
        let spec = server.spec.clone();
        server.spec = now.spec_before.clone().unwrap_or_else(|| spec.clone());
        let (mut then, mut seen) = stage(server, before);
        let plan = plan_server(&then, &seen);
        carry_out(&mut seen, &plan);
        then.status = Some(plan.status);
        then.metadata.generation = Some(1 + i64::from(now.spec_before.is_some()));
        then.spec = spec;
        (server, observed) = (then, seen);
    }
    observed.now = Time(start.0 + SignedDuration::from_secs(now.seconds));
    observed.workspaces = now.workspaces.iter().map(|one| published(one, now)).collect();
    observed.pods = Vec::new();
    observed.held = BTreeMap::new();
    for (number, pod) in now.pods.iter().enumerate() {
        add(&mut observed, &format!("smollm2-{number}"), pod);
    }
    stand(&mut observed, now);
    let soon = Time(observed.now.0 + SignedDuration::from_secs(30));
    observed.obstacle =
        now.obstacle.clone().map(|(reason, what)| ServerObstacle { reason, what, until: soon });
    (server, observed)
}

fn published(
    (name, all): (&String, &Vec<(String, String)>),
    now: &Situation,
) -> (String, Vec<Published>) {
    let one = |(revision, digits): &(String, String)| Published {
        revision: revision.clone(),
        image: format!("registry.example.com/team/{name}:{revision}"),
        digest: digest(digits),
        gate_failed: now.gate_failed.get(revision).cloned(),
    };
    (name.clone(), all.iter().map(one).collect())
}

/// The Deployment's status, as its controller writes it.
fn stand(observed: &mut ServerObserved, now: &Situation) {
    let Some(deployment) = &mut observed.deployment else { return };
    if now.scaled.is_some() {
        deployment.spec.as_mut().unwrap().replicas = now.scaled;
    }
    let count = now.pods.len() as i32;
    let ready = observed.pods.iter().filter(|pod| is_ready(pod)).count() as i32;
    let updated = if now.rolling { 0 } else { count };
    let conditions = now
        .refused
        .as_ref()
        .map(|message| json!([{"type": "ReplicaFailure", "status": "True", "message": message}]));
    deployment.metadata.generation = Some(1);
    deployment.status = serde_json::from_value(json!({
        "observedGeneration": 1, "replicas": count, "readyReplicas": ready,
        "updatedReplicas": updated, "conditions": conditions,
    }))
    .unwrap();
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().unwrap().conditions.iter().flatten();
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

fn add(observed: &mut ServerObserved, name: &str, now: &PodNow) {
    let is_down = now.waiting.is_some() || now.ended.is_some() || now.unschedulable.is_some();
    let ready = !is_down && !now.starting;
    let state = match &now.waiting {
        Some((reason, message)) => json!({"waiting": {"reason": reason, "message": message}}),
        None => json!({"running": {}}),
    };
    let last =
        now.ended.as_ref().map(|words| json!({"terminated": {"exitCode": 10, "message": words}}));
    let mut conditions =
        vec![json!({"type": "Ready", "status": if ready { "True" } else { "False" }})];
    if let Some(message) = &now.unschedulable {
        conditions.push(json!({"type": "PodScheduled", "status": "False", "message": message}));
    }
    let container = now.container.as_deref().unwrap_or("server");
    // One that runs before the others.
    let list =
        if container == "base-model" { "initContainerStatuses" } else { "containerStatuses" };
    let mut pod = json!({
        "metadata": {"name": name, "creationTimestamp": "2026-11-24T12:00:00Z"},
        "status": {
            "phase": if is_down { "Pending" } else { "Running" },
            "podIP": format!("10.0.0.{}", observed.pods.len() + 1),
            "conditions": conditions,
        },
    });
    pod["status"][list] = json!([{
        "name": container, "ready": ready, "restartCount": 0, "image": "i", "imageID": "",
        "state": state, "lastState": last,
    }]);
    observed.pods.push(serde_json::from_value(pod).unwrap());
    if is_down {
        return;
    }
    let declared: Declaration = declared(observed);
    let held = match &now.silent {
        Some(why) => Err(why.clone()),
        None => Ok(holding(now, &declared)),
    };
    observed.held.insert(name.to_owned(), held);
}

fn declared(observed: &ServerObserved) -> Declaration {
    let map = observed.config_map.as_ref().and_then(|map| map.data.as_ref());
    map.map(|data| serde_json::from_str(&data["adapters.json"]).unwrap()).unwrap_or_default()
}

fn holding(now: &PodNow, declared: &Declaration) -> Holding {
    let row = |(name, adapter): (&String, &AdapterNow)| HeldAdapter {
        name: name.clone(),
        source: declared
            .adapters
            .iter()
            .find(|row| row.name == *name)
            .map(|row| row.image.clone())
            .unwrap_or_default(),
        state: adapter.state,
        reason: adapter.reason.clone(),
        digest: adapter.digest.as_deref().map(digest),
        wanted_digest: adapter.wanted.as_deref().or(adapter.digest.as_deref()).map(digest),
    };
    let sequence = declared.sequence.saturating_sub(u64::from(now.behind));
    Holding { sequence, adapters: now.adapters.iter().map(row).collect() }
}

/// Carries out a plan, as the API server and the pods would.
pub(crate) fn carry_out(observed: &mut ServerObserved, plan: &ServerPlan) {
    for removal in &plan.delete {
        assert_eq!(removal.kind, "HorizontalPodAutoscaler");
        observed.autoscaler = None;
    }
    for object in plan.apply.clone() {
        match object {
            ServerObject::ConfigMap(one) => observed.config_map = Some(*one),
            ServerObject::NetworkPolicy(one) => observed.policy = Some(*one),
            ServerObject::Service(one) => observed.service = Some(*one),
            ServerObject::PodDisruptionBudget(one) => observed.budget = Some(*one),
            ServerObject::HorizontalPodAutoscaler(one) => observed.autoscaler = Some(*one),
            ServerObject::Deployment(mut one) => {
                let old = observed.deployment.take();
                one.status = old.as_ref().and_then(|old| old.status.clone());
                one.metadata.generation = old.and_then(|old| old.metadata.generation);
                observed.deployment = Some(*one);
            }
        }
    }
    for telling in &plan.tell {
        if let Some(Ok(holding)) = observed.held.get_mut(&telling.pod) {
            holding.sequence = telling.declaration.sequence;
        }
    }
}
