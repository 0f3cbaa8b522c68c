//! The one place that looks at a server's surroundings: at the objects that we made and at workspaces, from
//! watches; and at its pods, which tell what they hold.

use std::time::Duration;

use api::ModelServer;
use api::condition::{Reason, ServerReason};
use api::model_server::KIND;
use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};
use plan::server::observed::{Holding, ServerObserved, ServerObstacle, published, workspaces};
use plan::server::render::{CONTROL_PATH, CONTROL_PORT};
use plan::{Obstacle, names};

use super::ServerCtx;
use crate::subject::Subject;
use crate::workspace::Watched;

/// Longest wait for a pod's word.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything that a plan is made from.
pub(crate) async fn observe(ctx: &ServerCtx, server: &ModelServer) -> ServerObserved {
    ctx.children.wait().await;
    let children = &ctx.children;
    let name = server.name_any();
    let pods: Vec<Pod> = of_server(&children.pods, server);
    let held = join_all(pods.iter().filter_map(|pod| ask(ctx, pod))).await.into_iter().collect();
    let obstacle = ctx.shared.obstacles.of(&Subject::new(KIND, server).key);
    ServerObserved {
        now: Time(Timestamp::now()),
        settings: ctx.shared.settings.clone(),
        deployment: named(&children.deployments, server, &name),
        config_map: named(&children.config_maps, server, &format!("{name}-adapters")),
        service: named(&children.services, server, &name),
        budget: named(&children.budgets, server, &name),
        policy: named(&children.policies, server, &name),
        autoscaler: named(&children.autoscalers, server, &name),
        pods,
        workspaces: workspaces(server)
            .filter_map(|name| {
                let found = ctx.workspaces.get(&reference::<Watched>(server, name))?;
                let status = found.0.as_ref().ok()?.status.clone().unwrap_or_default();
                Some((name.to_owned(), published(&status)))
            })
            .collect(),
        held,
        obstacle: obstacle.map(of_a_server),
    }
}

fn of_a_server(obstacle: Obstacle) -> ServerObstacle {
    let Obstacle { reason, what, until } = obstacle;
    let reason = match reason {
        Reason::FieldConflict => ServerReason::FieldConflict,
        _ => ServerReason::ObjectRefused,
    };
    ServerObstacle { reason, what, until }
}

fn reference<K>(server: &ModelServer, name: &str) -> ObjectRef<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    ObjectRef::new(name).within(server.namespace().as_deref().unwrap_or_default())
}

fn named<K>(store: &Store<K>, server: &ModelServer, name: &str) -> Option<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + 'static,
{
    store.get(&reference(server, name)).map(|found| K::clone(&found))
}

fn of_server<K>(store: &Store<K>, server: &ModelServer) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let name = server.name_any();
    let found = store.state_filter(|object| {
        object.meta().namespace == server.metadata.namespace
            && object.labels().get(names::SERVER) == Some(&name)
    });
    found.iter().map(|object| K::clone(object)).collect()
}

/// The word of a pod whose container runs.
fn ask(
    ctx: &ServerCtx,
    pod: &Pod,
) -> Option<impl Future<Output = (String, Result<Holding, String>)> + use<>> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.running.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (name, url) = (pod.metadata.name.clone()?, url(status.pod_ip.as_deref()?));
    let http = ctx.shared.http.clone();
    Some(async move {
        let answer = http.get(url).timeout(PATIENCE).send().await;
        let answer = match answer.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => answer.json().await,
            Err(error) => Err(error),
        };
        // Without the address, which changes nothing and is another one for each pod.
        let answer = answer.map_err(|error| oci::with_causes(&error.without_url()));
        (name, answer)
    })
}

/// Where a pod is told and asked.
pub(super) fn url(address: &str) -> String {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("http://{host}:{CONTROL_PORT}{CONTROL_PATH}")
}

/// What a workspace's name stands for changes for these servers.
pub(super) fn takes_from(server: &ModelServer, workspace: &ObjectRef<Watched>) -> bool {
    server.metadata.namespace == workspace.namespace
        && workspaces(server).any(|name| name == workspace.name)
}
