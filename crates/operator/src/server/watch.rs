//! The controller of servers, with what it watches: servers, the objects that we made for them, and the
//! workspaces that they take adapters from.

use futures::channel::mpsc::{self, UnboundedReceiver};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, controller, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use plan::names;
use tokio::sync::watch;

use super::WatchedServer;
use super::observe::takes_from;
use crate::Options;
use crate::changes::changes;
use crate::kept;
use crate::watch::watched;
use crate::workspace::Watched;

/// The objects that we made for servers, as the watches show them.
#[derive(Clone)]
pub(crate) struct Children {
    pub(crate) deployments: Store<Deployment>,
    pub(crate) pods: Store<Pod>,
    pub(crate) config_maps: Store<ConfigMap>,
    pub(crate) services: Store<Service>,
    pub(crate) budgets: Store<PodDisruptionBudget>,
    pub(crate) policies: Store<NetworkPolicy>,
    pub(crate) autoscalers: Store<HorizontalPodAutoscaler>,
    servers: Store<WatchedServer>,
    /// Set once the watches have shown all there are.
    known: watch::Sender<bool>,
}

impl Children {
    /// Waits until the watches have shown all there are; `false` if one of them has ended. To be called once:
    /// a store wakes the last one who asked, and no other.
    pub(crate) async fn become_known(&self) -> bool {
        let are_known = self.servers.wait_until_ready().await.is_ok()
            && self.deployments.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.config_maps.wait_until_ready().await.is_ok()
            && self.services.wait_until_ready().await.is_ok()
            && self.budgets.wait_until_ready().await.is_ok()
            && self.policies.wait_until_ready().await.is_ok()
            && self.autoscalers.wait_until_ready().await.is_ok();
        self.known.send_replace(are_known);
        are_known
    }

    /// Waits until somebody else has seen that.
    pub(super) async fn wait(&self) {
        // The sender is `self`: there is no end of it to be told of.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }
}

/// The controller, and the caches that it keeps. `workspaces` tells of each workspace that has changed.
pub(crate) fn controller(
    client: &Client,
    options: &Options,
    all: Api<WatchedServer>,
    workspaces: UnboundedReceiver<ObjectRef<Watched>>,
) -> (Controller<WatchedServer>, Children) {
    let (servers, writer) = reflector::store();
    let (again, all_again) = mpsc::unbounded();
    let watch = watcher(all, watcher::Config::default().page_size(kept::PAGE));
    let own = changes(watch, kept::of_resource, writer, again.clone());
    let of = names::SERVER;
    let (deployments, of_deployments) =
        watched::<Deployment>(client, options, of, kept::without_managers, &again);
    let (pods, of_pods) = watched::<Pod>(client, options, of, kept::of_pod, &again);
    let (config_maps, of_maps) =
        watched::<ConfigMap>(client, options, of, kept::without_managers, &again);
    let (services, of_services) =
        watched::<Service>(client, options, of, kept::without_managers, &again);
    let (budgets, of_budgets) =
        watched::<PodDisruptionBudget>(client, options, of, kept::without_managers, &again);
    let (policies, of_policies) =
        watched::<NetworkPolicy>(client, options, of, kept::without_managers, &again);
    let (autoscalers, of_autoscalers) =
        watched::<HorizontalPodAutoscaler>(client, options, of, kept::without_managers, &again);
    let takers = servers.clone();
    let controller = Controller::for_stream(own, servers.clone())
        .with_config(controller::Config::default().concurrency(options.workers))
        .watches_stream(of_deployments, owner)
        .watches_stream(of_pods, owner)
        .watches_stream(of_maps, owner)
        .watches_stream(of_services, owner)
        .watches_stream(of_budgets, owner)
        .watches_stream(of_policies, owner)
        .watches_stream(of_autoscalers, owner)
        .reconcile_on(
            workspaces.flat_map(move |changed| stream::iter(takers_of(&takers, &changed))),
        )
        .reconcile_all_on(all_again);
    let known = watch::Sender::new(false);
    let children = Children {
        deployments,
        pods,
        config_maps,
        services,
        budgets,
        policies,
        autoscalers,
        servers,
        known,
    };
    (controller, children)
}

/// The server that an object was made for.
#[expect(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn owner<K: Resource>(object: K) -> Option<ObjectRef<WatchedServer>> {
    let name = object.labels().get(names::SERVER)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

/// The servers that take adapters from a workspace.
fn takers_of(
    servers: &Store<WatchedServer>,
    workspace: &ObjectRef<Watched>,
) -> Vec<ObjectRef<WatchedServer>> {
    let takes = |server: &WatchedServer| {
        server.0.as_ref().is_ok_and(|server| takes_from(server, workspace))
    };
    servers.state_filter(takes).iter().map(|server| ObjectRef::from_obj(&**server)).collect()
}
