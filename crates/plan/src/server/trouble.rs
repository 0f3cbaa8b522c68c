//! Why pods of a server are not ready: the words of scheduler, kubelet, quota and of the program itself.

use api::condition::ServerReason;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::observed::ServerObserved;
use super::render::VLLM;
use super::replicas::Replicas;
use crate::trouble::of_the_registry;

/// What holds pods up, in a sentence with what to do; nothing while they come as they should.
pub(super) fn of(
    replicas: &Replicas<'_>,
    observed: &ServerObserved,
) -> Option<(ServerReason, String)> {
    let refused = || observed.deployment.as_ref().and_then(refused);
    let is_ready = |pod: &Pod| replicas.ready.contains(&pod);
    let mut waiting = replicas.pods.iter().filter(|pod| !is_ready(pod));
    waiting.find_map(|pod| unschedulable(pod).or_else(|| not_starting(pod))).or_else(refused)
}

fn refused(deployment: &Deployment) -> Option<(ServerReason, String)> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|one| one.type_ == "ReplicaFailure")?;
    let message = failure.message.clone().unwrap_or_else(|| "a pod was refused".to_owned());
    let next = "raise the quota, or change the server's compute";
    (failure.status == "True")
        .then(|| (ServerReason::PodRefused, format!("{message}; next: {next}")))
}

fn unschedulable(pod: &Pod) -> Option<(ServerReason, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|one| one.type_ == "PodScheduled")?;
    let message = scheduled.message.clone().unwrap_or_else(|| "no node takes the pod".to_owned());
    let next = "add a node, or change compute";
    (scheduled.status == "False")
        .then(|| (ServerReason::Unschedulable, format!("{message}; next: {next}")))
}

fn not_starting(pod: &Pod) -> Option<(ServerReason, String)> {
    let status = pod.status.as_ref()?;
    // What runs first holds up the others.
    let all = [status.init_container_statuses.as_deref(), status.container_statuses.as_deref()];
    all.into_iter().flatten().flatten().find_map(held_up)
}

fn held_up(container: &ContainerStatus) -> Option<(ServerReason, String)> {
    let state = container.state.as_ref()?;
    let who = if container.name == VLLM { "vLLM" } else { "the server" };
    if let Some(ended) = said_at_the_end(container) {
        let message = format!("{who} ended: {ended}; next: see the pod's log");
        return Some((ServerReason::ContainerNotStarting, message));
    }
    let waiting = state.waiting.as_ref()?;
    let why = waiting.reason.as_deref()?;
    if matches!(why, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let detail = waiting.message.as_deref().unwrap_or("no message");
    if why.contains("Image") || why.contains("Pull") {
        let next = if container.name == VLLM {
            "check baseModel, its pull secret, and the operator's image of vLLM"
        } else {
            "check the reference in baseModel, and its pull secret"
        };
        let message = format!("cannot pull an image: {}; next: {next}", of_the_registry(detail));
        return Some((ServerReason::ImagePullFailed, message));
    }
    let message = format!("{why}: {detail}; next: see the pod's events");
    Some((ServerReason::ContainerNotStarting, message))
}

/// The last words of a program that ended by itself.
fn said_at_the_end(container: &ContainerStatus) -> Option<String> {
    const MOST: usize = 600;
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = now.or(last).filter(|ended| ended.exit_code != 0)?;
    let message = ended.message.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let text = match message {
        Some(text) => text.to_owned(),
        None => match ended.reason.as_deref() {
            Some("OOMKilled") => "it took more memory than it may".to_owned(),
            _ => format!("exit code {}", ended.exit_code),
        },
    };
    let skipped = text.chars().count().saturating_sub(MOST);
    Some(text.chars().skip(skipped).collect())
}
