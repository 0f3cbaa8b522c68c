//! The process from start to end: client, watches, lease, controller, and an orderly stop.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::{FineTuneWorkspace, ModelServer};
use futures::channel::mpsc::{self, UnboundedSender};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, controller, reflector, watcher};
use kube::{Api, Client, CustomResourceExt as _, Resource, ResourceExt as _};
use plan::{Settings, names};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::Options;
use crate::admin::{self, Admin, Readiness};
use crate::apply;
use crate::changes::changes;
use crate::context::{Children, Ctx};
use crate::counted;
use crate::kept;
use crate::leader::{Election, LEASE};
use crate::metrics::Metrics;
use crate::obstacle::Obstacles;
use crate::pools::Served;
use crate::products::Products;
use crate::server::{self, ServerCtx, WatchedServer};
use crate::workspace::{Watched, on_error, reconcile};
use crate::written::Written;

/// Runs until a signal, or until the lease is lost.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let metrics = Metrics::new().context("cannot register the metrics")?;
    metrics.workers(options.workers);
    let (workspaces, writer) = reflector::store();
    let readiness = Readiness::waits_for("the custom resource definition");
    let admin = Admin {
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        workspaces: workspaces.clone(),
    };
    let admin = tokio::spawn(admin::serve(options.admin_address, admin));
    let client = counted::client(&metrics).await?;
    let all: Api<Watched> = api(&client, options.namespace.as_deref());
    let servers: Api<WatchedServer> = api(&client, options.namespace.as_deref());
    wait_for_crd(&all, FineTuneWorkspace::crd_name()).await?;
    wait_for_crd(&servers, ModelServer::crd_name()).await?;

    let (again, all_again) = mpsc::unbounded();
    let of = names::WORKSPACE;
    let (jobs, job_changes) = watched::<Job>(&client, &options, of, kept::of_job, &again);
    let (pods, pod_changes) = watched::<Pod>(&client, &options, of, kept::of_pod, &again);
    let (config_maps, map_changes) =
        watched::<ConfigMap>(&client, &options, of, kept::without_managers, &again);
    let (tell_servers, changed_workspaces) = mpsc::unbounded();
    let servers = server::watch::controller(&client, &options, servers, changed_workspaces);
    let watch = watcher(all, watcher::Config::default().page_size(kept::PAGE));
    let changes = changes(watch, kept::of_resource, writer, again);
    let queue = metrics.queue.clone();
    let changes = changes.inspect_ok(move |changed| {
        queue.added(ObjectRef::from_obj(changed));
        // Nobody hears it when the controller of servers has ended.
        let _ = tell_servers.unbounded_send(ObjectRef::from_obj(changed));
    });
    let controller = Controller::for_stream(changes, workspaces)
        .with_config(controller::Config::default().concurrency(options.workers))
        .watches_stream(job_changes, owner(&metrics))
        .watches_stream(pod_changes, owner(&metrics))
        .watches_stream(map_changes, owner(&metrics))
        .reconcile_all_on(all_again);

    let identity = identity();
    let stop = stop_signal()?;
    let election = options
        .lease_namespace
        .as_deref()
        .map(|namespace| Election::new(client.clone(), namespace, identity.clone()));
    let ctx = Ctx {
        identity,
        obstacles: Obstacles::default(),
        written: Written::default(),
        http: reqwest::Client::builder().no_proxy().build().context("cannot set up http")?,
        settings: settings(&options),
        metrics: metrics.clone(),
        children: Children::new(jobs, pods, config_maps),
        served: Served::default(),
        products: Products::new(options.gpu_catalogue),
        client,
    };
    let scope = options.namespace;
    tokio::select! {
        () = stop => {}
        ended = admin => bail!("cannot answer at the admin address: {ended:?}"),
        lost = lead(election.as_ref(), &readiness, (controller, servers), (Arc::new(ctx), scope)) => lost?,
    }
    if let Some(election) = election {
        election.release().await;
    }
    info!("stopped");
    Ok(())
}

/// What plans are made with.
fn settings(options: &Options) -> Settings {
    Settings {
        trainer_image: options.trainer_image.clone(),
        server_image: options.server_image.clone(),
        vllm_image: options.vllm_image.clone(),
        namespace: options.lease_namespace.clone(),
        image_pull_secrets: options.image_pull_secrets.clone(),
        plain_http: options.plain_http.clone(),
        hub_endpoint: options.hub_endpoint.clone(),
    }
}

/// Waits for the lease, then works for as long as it is held.
async fn lead(
    election: Option<&Election>,
    readiness: &Readiness,
    (controller, servers): (
        Controller<Watched>,
        (Controller<WatchedServer>, server::watch::Children),
    ),
    (ctx, scope): (Arc<Ctx>, Option<String>),
) -> anyhow::Result<()> {
    let (metrics, children) = (ctx.metrics.clone(), ctx.children.clone());
    if let Some(election) = election {
        // A replica that waits is as ready as it can be.
        readiness.set(None);
        metrics.leads(LEASE, false);
        election.win().await;
        metrics.leads(LEASE, true);
    }
    readiness.set(Some("the first look at the cluster"));
    let workspaces = controller.store();
    let work = controller.run(reconcile, on_error, Arc::clone(&ctx)).for_each(|result| {
        if let Err(error) = result {
            tracing::debug!(%error, "a pass ended early");
            if let controller::Error::ObjectNotFound(object) = error {
                metrics.gone(&object.into_kind_unchecked(()));
            }
        }
        std::future::ready(())
    });
    let (servers, of_servers) = servers;
    let server_ctx = ServerCtx {
        shared: Arc::clone(&ctx),
        children: of_servers.clone(),
        workspaces: workspaces.clone(),
    };
    let serve = servers
        .run(server::reconcile, server::on_error, Arc::new(server_ctx))
        .for_each(|_| std::future::ready(()));
    let look = async {
        if workspaces.wait_until_ready().await.is_ok()
            && children.become_known().await
            && of_servers.become_known().await
        {
            readiness.set(None);
            sweep(&ctx, scope.as_deref(), &workspaces).await;
        }
        std::future::pending::<()>().await;
    };
    let hold = async {
        match election {
            Some(election) => election.hold().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = work => bail!("the watch of workspaces has ended"),
        () = serve => bail!("the watch of servers has ended"),
        () = look => Ok(()),
        () = hold => bail!("the lease is lost"),
    }
}

/// Takes away what is left of workspaces that are gone; where that fails, again after a while.
async fn sweep(ctx: &Ctx, scope: Option<&str>, workspaces: &Store<Watched>) {
    const AGAIN: Duration = Duration::from_secs(30);
    let is_there = |namespace: &str, name: &str, uid: &str| {
        let found = workspaces.get(&ObjectRef::new(name).within(namespace));
        found.is_some_and(|found| found.meta().uid.as_deref() == Some(uid))
    };
    while let Err(error) = apply::sweep(ctx, scope, is_there).await {
        warn!(%error, "cannot look for what is left of workspaces that are gone");
        tokio::time::sleep(AGAIN).await;
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A cache of the objects that we made and labelled with `of`, as far as `keep` leaves them, and the stream
/// that keeps it and tells of each change.
pub(crate) fn watched<K>(
    client: &Client,
    options: &Options,
    of: &str,
    keep: fn(&mut K),
    again: &UnboundedSender<()>,
) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static + use<K>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = reflector::store();
    let (key, value) = names::MANAGED_BY;
    let ours = format!("{key}={value},{of}");
    let config = watcher::Config::default().labels(&ours).page_size(kept::PAGE);
    let watch = watcher(api::<K>(client, options.namespace.as_deref()), config);
    (reader, changes(watch, keep, writer, again.clone()))
}

/// Finds the workspace that an object was made for, and counts that it is to be looked at.
fn owner<K: Resource>(metrics: &Metrics) -> impl Fn(K) -> Option<ObjectRef<Watched>> + use<K> {
    let queue = metrics.queue.clone();
    move |object| {
        let name = object.labels().get(names::WORKSPACE)?;
        let owner = ObjectRef::new(name).within(&object.namespace()?);
        queue.added(owner.clone());
        Some(owner)
    }
}

/// Waits for the custom resource definition, and says how to install it.
async fn wait_for_crd<K>(all: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    const EVERY: Duration = Duration::from_secs(2);
    loop {
        match all.list(&kube::api::ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(error)) if error.code == 404 => {
                warn!("there is no {name} here: run `anneal-operator crds | kubectl apply -f -`");
            }
            Err(kube::Error::Api(error)) if error.code == 401 || error.code == 403 => {
                bail!("the operator may not list {name}: {error}")
            }
            Err(error) => warn!(%error, "the API server does not answer"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
    })
}

/// The pod's name, and the process where several run on one machine.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    format!("{host}-{}", std::process::id())
}
