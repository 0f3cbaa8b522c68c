//! What all passes share.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use plan::Settings;

use crate::metrics::Metrics;

/// Name of the field manager, the controller and the events' reporter.
pub(crate) const MANAGER: &str = "anneal-operator";

/// What all passes share.
pub(crate) struct Ctx {
    pub(crate) client: Client,
    /// For trainers: short waits, no credentials.
    pub(crate) http: reqwest::Client,
    pub(crate) settings: Settings,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) children: Children,
}

/// The objects that we made, as the watches show them.
#[derive(Clone)]
pub(crate) struct Children {
    pub(crate) jobs: Store<Job>,
    pub(crate) pods: Store<Pod>,
    pub(crate) config_maps: Store<ConfigMap>,
}

impl Children {
    /// Waits until the watches have shown all there are; `false` if one of them has ended.
    pub(crate) async fn are_known(&self) -> bool {
        self.jobs.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.config_maps.wait_until_ready().await.is_ok()
    }
}
