//! What is around the pods of a server: what they are told at their start, how they are reached and by whom,
//! how many may be missing, and what follows the load.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricTarget, PodsMetricSource,
};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{CONTROL_PORT, PORT};
use crate::server::Server;
use crate::server::declared::{Declaration, FILE};
use crate::server::observed::ServerObserved;

/// What a pod reads when it starts.
pub(super) fn config_map(server: &Server<'_>, declaration: &Declaration) -> ConfigMap {
    ConfigMap {
        metadata: server.metadata(server.config_map()),
        data: Some(BTreeMap::from([(FILE.to_owned(), declaration.text())])),
        ..ConfigMap::default()
    }
}

pub(super) fn service(server: &Server<'_>) -> Service {
    Service {
        metadata: server.metadata(server.name()),
        spec: Some(ServiceSpec {
            selector: Some(server.selector()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: 80,
                target_port: Some(IntOrString::String("http".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A drain takes one pod after the other.
pub(super) fn budget(server: &Server<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: server.metadata(server.name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(chosen(server)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// Everybody may ask for answers; what to hold is told by the operator alone.
pub(super) fn network_policy(server: &Server<'_>, observed: &ServerObserved) -> NetworkPolicy {
    let rule = |port: i32, from: Option<Vec<NetworkPolicyPeer>>| NetworkPolicyIngressRule {
        from,
        ports: Some(vec![NetworkPolicyPort {
            protocol: Some("TCP".to_owned()),
            port: Some(IntOrString::Int(port)),
            end_port: None,
        }]),
    };
    let labels = |name: &str, value: &str| LabelSelector {
        match_labels: Some(BTreeMap::from([(name.to_owned(), value.to_owned())])),
        match_expressions: None,
    };
    let operator = observed.settings.namespace.as_ref().map(|namespace| {
        vec![NetworkPolicyPeer {
            namespace_selector: Some(labels("kubernetes.io/metadata.name", namespace)),
            pod_selector: Some(labels("app.kubernetes.io/name", "anneal-operator")),
            ip_block: None,
        }]
    });
    NetworkPolicy {
        metadata: server.metadata(server.name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(chosen(server)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![rule(PORT, None), rule(CONTROL_PORT, operator)]),
            egress: None,
        }),
    }
}

/// Follows the number of requests that wait, which a metrics adapter has to bring to the API server.
pub(super) fn autoscaler(server: &Server<'_>) -> Option<HorizontalPodAutoscaler> {
    const WAITING: u32 = 4;
    let scaling = server.raw.spec.autoscaling.as_ref()?;
    let most = scaling.waiting_requests.unwrap_or(WAITING);
    Some(HorizontalPodAutoscaler {
        metadata: server.metadata(server.name()),
        spec: Some(HorizontalPodAutoscalerSpec {
            min_replicas: Some(scaling.min_replicas.unwrap_or(1) as i32),
            max_replicas: scaling.max_replicas as i32,
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: server.name(),
            },
            metrics: Some(vec![MetricSpec {
                type_: "Pods".to_owned(),
                pods: Some(PodsMetricSource {
                    metric: MetricIdentifier {
                        name: "vllm:num_requests_waiting".to_owned(),
                        selector: None,
                    },
                    target: MetricTarget {
                        type_: "AverageValue".to_owned(),
                        average_value: Some(Quantity(most.to_string())),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: None,
        }),
        status: None,
    })
}

pub(super) fn chosen(server: &Server<'_>) -> LabelSelector {
    LabelSelector { match_labels: Some(server.selector()), match_expressions: None }
}
