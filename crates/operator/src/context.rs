//! What all passes share.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::runtime::reflector::Store;
use plan::Settings;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::obstacle::Obstacles;
use crate::pools::Served;
use crate::products::Products;
use crate::written::Written;

/// Name of the field manager, the controller and the events' reporter.
pub(crate) const MANAGER: &str = "anneal-operator";

/// What all passes share.
pub(crate) struct Ctx {
    pub(crate) client: Client,
    /// For trainers: short waits, no credentials.
    pub(crate) http: reqwest::Client,
    pub(crate) settings: Settings,
    /// Who tells events: this process.
    pub(crate) identity: String,
    pub(crate) obstacles: Obstacles,
    pub(crate) written: Written,
    pub(crate) metrics: Metrics,
    pub(crate) children: Children,
    pub(crate) served: Served,
    pub(crate) products: Products,
}

/// The objects that we made, as the watches show them.
#[derive(Clone)]
pub(crate) struct Children {
    pub(crate) jobs: Store<Job>,
    pub(crate) pods: Store<Pod>,
    pub(crate) config_maps: Store<ConfigMap>,
    /// Set once the watches have shown all there are.
    known: watch::Sender<bool>,
}

impl Children {
    pub(crate) fn new(jobs: Store<Job>, pods: Store<Pod>, config_maps: Store<ConfigMap>) -> Self {
        Self { jobs, pods, config_maps, known: watch::Sender::new(false) }
    }

    /// Waits until the watches have shown all there are; `false` if one of them has ended.
    ///
    /// Only one may wait for a store: it wakes the last one who asked, and no other. The rest waits by
    /// [`Self::wait`].
    pub(crate) async fn become_known(&self) -> bool {
        let are_known = self.jobs.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.config_maps.wait_until_ready().await.is_ok();
        self.known.send_replace(are_known);
        are_known
    }

    /// Waits until somebody else has seen that.
    pub(crate) async fn wait(&self) {
        // The sender is `self`: there is no end of it to be told of.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }
}
