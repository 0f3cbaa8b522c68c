//! The pod: the trainer's container under the `restricted` Pod Security level, with the workspace, the
//! images and the secrets that the spec names, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Workspace;
use api::valid::{DataSource, HeldOut, ModelSource};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, LocalObjectReference,
    PodSpec, Probe, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::volumes::{container_security, docker_config, empty, image, mount, pod_security};
use super::{Context, config_map, hub, pool};
use crate::end::{self, Again};
use crate::names::{self, Role};
use crate::seen::{JobState, state};

/// The container's name.
pub(crate) const CONTAINER: &str = "trainer";
/// Port of `/healthz`, `/status`, `/events` and `/metrics`.
pub const PORT: i32 = 8080;

/// Seconds between SIGTERM and SIGKILL: a checkpoint is written in them.
const GRACE_SECONDS: i64 = 120;

/// How often an attempt ran out of memory before.
const HALVINGS: &str = "ANNEAL_MICRO_BATCH_HALVINGS";

/// Folder of the workspace's file.
const WORKSPACE: &str = "/etc/anneal";
/// Folder of the push credential, in the form of Docker's configuration.
const PUSH: &str = "/var/run/secrets/anneal.dev/push";

pub(super) fn pod(context: &Context<'_>, role: Role, number: u32) -> PodSpec {
    let workspace = context.workspace;
    let compute = &workspace.compute;
    let (volumes, mounts) = volumes(context).into_iter().unzip();
    let trains = role == Role::Train;
    let mut pod = PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        priority_class_name: compute.priority_class_name.clone(),
        node_selector: trains.then(|| compute.node_selector.clone()).filter(|map| !map.is_empty()),
        tolerations: trains.then(|| compute.tolerations.clone()).filter(|list| !list.is_empty()),
        image_pull_secrets: pull_secrets(context),
        security_context: Some(pod_security()),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(context.observed.settings.trainer_image.clone()),
            args: Some(vec![role.as_str().to_owned()]),
            env: Some(environment(context, role, number)),
            ports: Some(vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: PORT,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            liveness_probe: Some(liveness(workspace.limits.stall)),
            resources: Some(resources(context, role)),
            security_context: Some(container_security()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }],
        volumes: Some(volumes),
        ..PodSpec::default()
    };
    if let Some(placement) = context.placement.filter(|_| trains) {
        pool::put(&mut pod, placement, &context.run.pool());
    }
    pod
}

/// The trainer answers `/healthz` with an error when it has made no step for `limits.stall`. The operator has
/// as long again, at most two minutes, to end it before the kubelet does; after the same time a trainer is
/// killed that does not answer at all. To a pod that never restarts the kubelet gives the whole grace then,
/// whatever the probe says.
fn liveness(stall: Duration) -> Probe {
    const EVERY: u64 = 10;
    let failures = (stall.as_secs() / EVERY).clamp(3, 12);
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz".to_owned()),
            port: IntOrString::Int(PORT),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: Some(30),
        period_seconds: Some(EVERY as i32),
        timeout_seconds: Some(EVERY as i32),
        failure_threshold: Some(failures as i32),
        ..Probe::default()
    }
}

fn pull_secrets(context: &Context<'_>) -> Option<Vec<LocalObjectReference>> {
    let secrets = &context.workspace.secrets;
    let mut names = context.observed.settings.image_pull_secrets.clone();
    names.extend([&secrets.pull_model, &secrets.pull_data].into_iter().flatten().cloned());
    names.sort();
    names.dedup();
    let list = names.into_iter().map(|name| LocalObjectReference { name }).collect::<Vec<_>>();
    (!list.is_empty()).then_some(list)
}

fn environment(context: &Context<'_>, role: Role, number: u32) -> Vec<EnvVar> {
    let set = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    let mut variables = vec![
        set("ANNEAL_WORKSPACE", format!("{WORKSPACE}/{}", config_map::FILE)),
        set("HOME", "/work".to_owned()),
    ];
    if context.workspace.secrets.push.is_some() {
        variables.push(set("DOCKER_CONFIG", PUSH.to_owned()));
    }
    variables.extend(hub::variables(context, role));
    let plain_http = &context.observed.settings.plain_http;
    if !plain_http.is_empty() {
        variables.push(set("ANNEAL_PLAIN_HTTP", plain_http.join(",")));
    }
    if role == Role::Train {
        let stall = context.workspace.limits.stall.as_secs();
        variables.push(set("ANNEAL_STALL_SECONDS", stall.to_string()));
        let halvings = halvings(context, number);
        if halvings > 0 {
            variables.push(set(HALVINGS, halvings.to_string()));
        }
    }
    variables
}

/// How often a training Job before this one ran out of memory: what the last one of them was told, and
/// its own end.
fn halvings(context: &Context<'_>, number: u32) -> u32 {
    let mut earlier = context.seen.trainings.iter().rev().copied();
    let Some(last) = earlier.find(|job| names::number(job) < number) else { return 0 };
    let ran_out = match state(last) {
        JobState::Failed(condition) => {
            let end = end::job_end(&context.workspace.limits, context.seen, last, condition);
            end.again == Again::Halved
        }
        JobState::Suspended | JobState::Active | JobState::Complete => false,
    };
    told(last).unwrap_or(0) + u32::from(ran_out)
}

/// Of a container's variables those that [`told`] reads.
pub(super) fn told_only(variables: Vec<EnvVar>) -> Vec<EnvVar> {
    variables.into_iter().filter(|variable| variable.name == HALVINGS).collect()
}

/// The halvings that a Job was told.
fn told(job: &Job) -> Option<u32> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let mut variables = pod.containers.first()?.env.iter().flatten();
    variables.find(|variable| variable.name == HALVINGS)?.value.as_ref()?.parse().ok()
}

/// What the user states, both as request and as limit; else what preflight estimated, as a request.
fn resources(context: &Context<'_>, role: Role) -> ResourceRequirements {
    const LEAST: u64 = 1 << 30;
    // On a GPU the estimate is of the GPU's memory: the weights pass through the machine's.
    const MOST_BESIDE_A_GPU: u64 = 8 << 30;
    let compute = &context.workspace.compute;
    let most = if context.placement.is_some() { MOST_BESIDE_A_GPU } else { u64::MAX };
    let estimate = context.resolved().map(|found| found.memory.min(most));
    let bytes = |bytes: u64| Quantity(bytes.to_string());
    let mut requests = BTreeMap::from([
        ("cpu".to_owned(), Quantity(compute.threads.map_or("500m".to_owned(), |n| n.to_string()))),
        (
            "memory".to_owned(),
            bytes(compute.memory.unwrap_or_else(|| estimate.unwrap_or(LEAST).max(LEAST))),
        ),
    ]);
    let mut limits = BTreeMap::new();
    if let Some(memory) = compute.memory {
        limits.insert("memory".to_owned(), bytes(memory));
    }
    if role == Role::Train && compute.gpus > 0 {
        let gpus = Quantity(compute.gpus.to_string());
        limits.insert("nvidia.com/gpu".to_owned(), gpus.clone());
        requests.insert("nvidia.com/gpu".to_owned(), gpus);
    }
    ResourceRequirements {
        requests: Some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        claims: None,
    }
}

/// Each volume with its mount. Everything but `/work` and `/tmp` is read-only.
fn volumes(context: &Context<'_>) -> Vec<(Volume, VolumeMount)> {
    let mut all = vec![
        (
            Volume {
                name: "workspace".to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: context.run.config_map(),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            mount("workspace", WORKSPACE, true),
        ),
        (empty("work"), mount("work", "/work", false)),
        (empty("tmp"), mount("tmp", "/tmp", false)),
    ];
    all.extend(images(context.workspace).into_iter().map(|(name, reference)| {
        let path = format!("/mnt/{name}");
        (image(name, reference), mount(name, &path, true))
    }));
    if let Some(secret) = &context.workspace.secrets.push {
        all.push((docker_config("push", secret), mount("push", PUSH, true)));
    }
    all
}

/// The images of a workspace and the volumes that they are: `/mnt/NAME` in the pod.
fn images(workspace: &Workspace) -> Vec<(&'static str, String)> {
    let mut images = Vec::new();
    if let ModelSource::Image(image) = &workspace.base_model {
        images.push(("base-model", image.to_string()));
    }
    if let DataSource::Image(image) = &workspace.data.train {
        images.push(("train", image.to_string()));
    }
    for (name, held_out) in
        [("validation", &workspace.data.validation), ("test", &workspace.data.test)]
    {
        if let HeldOut::Source(DataSource::Image(image)) = held_out {
            images.push((name, image.to_string()));
        }
    }
    images
}
