//! The pods of a server, under the `restricted` Pod Security level. A new pod is ready before an old one ends,
//! and one that ends first finishes what it answers.

use api::model_server::Engine;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler,
    LocalObjectReference, PodSpec, PodTemplateSpec, Probe, SleepAction, TopologySpreadConstraint,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{CONTROL_PORT, PORT, anneal, around, vllm};
use crate::render::{container_security, pod_security};
use crate::server::Server;
use crate::server::observed::ServerObserved;

/// The name of the container that answers.
const CONTAINER: &str = "server";
/// Seconds for which a pod goes on after it was told to end, until nobody sends it anything any more.
pub(super) const LEAVE_SECONDS: i64 = 5;
/// Seconds that running answers get.
pub(super) const DRAIN_SECONDS: i64 = 25;

pub(super) fn deployment(server: &Server<'_>, observed: &ServerObserved) -> Deployment {
    Deployment {
        metadata: server.metadata(server.name()),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(server, observed)),
            revision_history_limit: Some(2),
            selector: around::chosen(server),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(server.selector()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(server, observed)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// What the spec says, or what the autoscaler has set within its bounds.
fn replicas(server: &Server<'_>, observed: &ServerObserved) -> i32 {
    let spec = &server.raw.spec;
    let Some(scaling) = &spec.autoscaling else { return spec.replicas.unwrap_or(1) as i32 };
    let found = observed.deployment.as_ref().and_then(|found| found.spec.as_ref()?.replicas);
    let least = scaling.min_replicas.unwrap_or(1).min(scaling.max_replicas) as i32;
    found.unwrap_or(least).clamp(least, scaling.max_replicas as i32)
}

fn pod(server: &Server<'_>, observed: &ServerObserved) -> PodSpec {
    let compute = server.raw.spec.compute.clone().unwrap_or_default();
    let (mut volumes, mounts): (Vec<Volume>, Vec<VolumeMount>) =
        anneal::volumes(server).into_iter().unzip();
    let mut before = None;
    let containers = match server.raw.spec.engine {
        Engine::Anneal => vec![Container {
            args: Some(anneal::arguments(server)),
            env: Some(anneal::environment(server, observed)),
            resources: Some(anneal::resources(server)),
            ..container(observed, mounts)
        }],
        Engine::VLLM => {
            volumes.extend(vllm::volumes());
            before = vllm::link(server, observed).map(|container| vec![container]);
            let front = Container {
                args: Some(vllm::front_arguments(server)),
                env: Some(anneal::surroundings(observed)),
                resources: Some(vllm::front_resources()),
                ..container(observed, mounts)
            };
            vec![front, vllm::container(server, observed)]
        }
    };
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(LEAVE_SECONDS + DRAIN_SECONDS + 10),
        priority_class_name: compute.priority_class_name,
        node_selector: Some(compute.node_selector).filter(|map| !map.is_empty()),
        tolerations: Some(compute.tolerations).filter(|list| !list.is_empty()),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(around::chosen(server)),
            ..TopologySpreadConstraint::default()
        }]),
        image_pull_secrets: pull_secrets(server, observed),
        security_context: Some(pod_security()),
        init_containers: before,
        containers,
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// What answers, without its arguments, environment and resources.
fn container(observed: &ServerObserved, mounts: Vec<VolumeMount>) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(observed.settings.server_image.clone()),
        ports: Some(vec![port("http", PORT), port("control", CONTROL_PORT)]),
        // A base model is fetched and loaded before anything is answered.
        startup_probe: Some(probe("/healthz", PORT, 2, 900)),
        readiness_probe: Some(probe("/readyz", PORT, 2, 3)),
        liveness_probe: Some(probe("/healthz", PORT, 10, 6)),
        // Whoever sends requests learns of the end only after a while.
        lifecycle: Some(sleep_at_the_end(LEAVE_SECONDS)),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Holds the end of a container up for so long.
pub(super) fn sleep_at_the_end(seconds: i64) -> Lifecycle {
    let sleep =
        LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

pub(super) fn probe(path: &str, port: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// For the program's image, and for the base model's.
fn pull_secrets(
    server: &Server<'_>,
    observed: &ServerObserved,
) -> Option<Vec<LocalObjectReference>> {
    let mut names = observed.settings.image_pull_secrets.clone();
    names.extend(server.raw.spec.base_model.pull_secret.clone());
    names.sort();
    names.dedup();
    let list: Vec<_> = names.into_iter().map(|name| LocalObjectReference { name }).collect();
    (!list.is_empty()).then_some(list)
}

/// A variable with a value.
pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}
