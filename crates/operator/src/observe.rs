//! The one place that looks: at the objects that we made (from watches), and at what the plan asks
//! for beside them: secrets, a Job's warnings, the trainer, the registry.

use std::collections::BTreeMap;
use std::time::Duration;

use api::workspace::KIND;
use api::{FineTuneWorkspace, TrainerStatus};
use k8s_openapi::api::core::v1::{Event, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt as _};
use plan::{
    Catalogue, ClusterFacts, Observed, Questions, RegistryAnswer, SecretKind, SecretState, names,
    questions,
};
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::context::Ctx;
use crate::pools;
use crate::subject::Subject;

/// Why something could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    #[error("cannot read the events of `{name}`: {source}")]
    Events { name: String, source: Box<kube::Error> },
    #[error("cannot look at what nodes are made with: {source}")]
    Nodes { source: Box<kube::Error> },
    #[error("cannot read the object `{name}`: {source}")]
    Object { name: String, source: Box<kube::Error> },
    /// The API server refused or did not answer.
    #[error("cannot read the secret `{name}`")]
    Secret { name: String, source: Box<kube::Error> },
}

/// Everything that a plan is made from.
pub(crate) async fn observe(
    ctx: &Ctx,
    workspace: &FineTuneWorkspace,
) -> Result<Observed, ObserveError> {
    ctx.children.wait().await;
    let mut observed = Observed {
        now: Time(Timestamp::now()),
        settings: ctx.settings.clone(),
        config_maps: of_workspace(&ctx.children.config_maps, workspace),
        jobs: of_workspace(&ctx.children.jobs, workspace),
        pods: of_workspace(&ctx.children.pods, workspace),
        secrets: BTreeMap::new(),
        refusal: None,
        killings: BTreeMap::new(),
        trainer: None,
        registry: RegistryAnswer::NotAsked,
        obstacle: ctx.obstacles.of(&Subject::new(KIND, workspace).key),
        cluster: ClusterFacts::default(),
        pools: Vec::new(),
        nodes: BTreeMap::new(),
        gpu_nodes: None,
        catalogue: Catalogue { products: Vec::new() },
    };
    if asks_for_nodes(workspace) {
        look_at_pools(ctx, workspace, &mut observed).await.map_err(nodes_error)?;
    }
    let namespace = workspace.namespace().unwrap_or_default();
    let Questions { secrets, adapter, trainer, refused, killed, nodes, gpu_nodes } =
        questions(workspace, &observed);
    for (name, kind) in secrets {
        let state = secret_state(ctx, &namespace, &name, kind).await?;
        observed.secrets.insert(name, state);
    }
    for name in nodes {
        match pools::node(&ctx.client, &name).await {
            // An operator of one namespace may not look at nodes: nothing is said of them.
            Err(kube::Error::Api(error)) if error.code == 403 => {}
            found => {
                observed.nodes.insert(name, found.map_err(nodes_error)?);
            }
        }
    }
    if gpu_nodes {
        observed.gpu_nodes = pools::gpu_nodes(&ctx.client).await.ok();
    }
    if let Some(job) = refused {
        observed.refusal = refusal(ctx, &namespace, &job).await?;
    }
    for pod in killed {
        if let Some(word) = killing(ctx, &namespace, &pod).await? {
            observed.killings.insert(pod, word);
        }
    }
    if let Some(address) = trainer {
        observed.trainer = trainer_status(ctx, &address).await;
    }
    if let Some((adapter, secret)) = adapter {
        observed.registry = ask_registry(ctx, &namespace, &adapter, secret.as_deref()).await?;
    }
    Ok(observed)
}

fn nodes_error(source: kube::Error) -> ObserveError {
    ObserveError::Nodes { source: Box::new(source) }
}

/// Whether there may be nodes for the workspace, or something that is left of them.
fn asks_for_nodes(workspace: &FineTuneWorkspace) -> bool {
    let asks = workspace.spec.compute.as_ref().is_some_and(|compute| compute.nodes.is_some());
    asks || workspace.finalizers().iter().any(|one| one == names::FINALIZER)
}

/// What nodes could be made with, and what was made of it for this workspace.
async fn look_at_pools(
    ctx: &Ctx,
    workspace: &FineTuneWorkspace,
    observed: &mut Observed,
) -> Result<(), kube::Error> {
    let (name, namespace) = (workspace.name_any(), workspace.namespace().unwrap_or_default());
    observed.cluster = ctx.served.facts(&ctx.client).await?;
    let (key, value) = names::MANAGED_BY;
    let labels = format!("{key}={value},{}={name}", names::WORKSPACE);
    let mut pools = pools::list(&ctx.client, &observed.cluster, &namespace, &labels).await?;
    pools.retain(|pool| {
        let labels = pool.metadata.labels.as_ref();
        let of = labels.and_then(|labels| labels.get(names::NAMESPACE));
        of.is_none_or(|of| *of == namespace)
    });
    observed.pools = pools;
    observed.catalogue = ctx.products.now();
    Ok(())
}

/// The status of an object that this version cannot read; what it can read of it.
pub(crate) async fn old_status<K, S>(
    ctx: &Ctx,
    namespace: &str,
    name: &str,
) -> Result<Option<S>, ObserveError>
where
    K: Resource<DynamicType = ()>,
    S: DeserializeOwned,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource);
    let found = api.get_opt(name).await.map_err(|source| ObserveError::Object {
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    let status =
        found.and_then(|mut found| found.data.get_mut("status").map(serde_json::Value::take));
    Ok(status.and_then(|status| serde_json::from_value(status).ok()))
}

/// The objects of one workspace.
fn of_workspace<K>(store: &Store<K>, workspace: &FineTuneWorkspace) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let name = workspace.name_any();
    let found = store.state_filter(|object| {
        let meta = object.meta();
        meta.namespace == workspace.metadata.namespace
            && object.labels().get(names::WORKSPACE) == Some(&name)
    });
    found.iter().map(|object| K::clone(object)).collect()
}

async fn secret(ctx: &Ctx, namespace: &str, name: &str) -> Result<Option<Secret>, ObserveError> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    secrets
        .get_opt(name)
        .await
        .map_err(|source| ObserveError::Secret { name: name.to_owned(), source: Box::new(source) })
}

/// Whether a secret can be what it is named for; says nothing of what it holds.
async fn secret_state(
    ctx: &Ctx,
    namespace: &str,
    name: &str,
    kind: SecretKind,
) -> Result<SecretState, ObserveError> {
    let Some(secret) = secret(ctx, namespace, name).await? else {
        return Ok(SecretState::Missing);
    };
    let malformed = |why: &str| Ok(SecretState::Malformed(why.to_owned()));
    if kind == SecretKind::HubToken {
        let token = secret.data.as_ref().and_then(|data| data.get("token"));
        return match token {
            Some(token) if !token.0.is_empty() => Ok(SecretState::Usable),
            _ => malformed("it has no key `token`"),
        };
    }
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson")) else {
        return malformed("it has no key `.dockerconfigjson`");
    };
    let config = serde_json::from_slice::<serde_json::Value>(&value.0);
    if config.is_ok_and(|config| config.get("auths").is_some_and(serde_json::Value::is_object)) {
        return Ok(SecretState::Usable);
    }
    malformed("its key `.dockerconfigjson` is not a JSON object with `auths`")
}

/// The Job controller's last word on pods that it cannot make, such as that of a quota.
async fn refusal(ctx: &Ctx, namespace: &str, job: &str) -> Result<Option<String>, ObserveError> {
    Ok(last_word(&events(ctx, namespace, "Job", job).await?, "FailedCreate"))
}

/// Why the kubelet killed a pod, where it did: what its probe told last.
async fn killing(ctx: &Ctx, namespace: &str, pod: &str) -> Result<Option<String>, ObserveError> {
    let events = events(ctx, namespace, "Pod", pod).await?;
    // Without this, somebody else did it.
    let was_killed = last_word(&events, "Killing").is_some();
    Ok(last_word(&events, "Unhealthy").filter(|_| was_killed))
}

fn last_word(events: &[Event], reason: &str) -> Option<String> {
    let told = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
    told.max_by_key(|event| event.last_timestamp.clone())?.message.clone()
}

/// The events about an object; none where the operator may not see them.
async fn events(
    ctx: &Ctx,
    namespace: &str,
    kind: &str,
    name: &str,
) -> Result<Vec<Event>, ObserveError> {
    let events: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
    let about = format!("involvedObject.kind={kind},involvedObject.name={name}");
    match events.list(&ListParams::default().fields(&about)).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(error)) if error.code == 403 => Ok(Vec::new()),
        Err(source) => {
            Err(ObserveError::Events { name: name.to_owned(), source: Box::new(source) })
        }
    }
}

/// The trainer's word; without one the plan does without it.
async fn trainer_status(ctx: &Ctx, address: &str) -> Option<TrainerStatus> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = format!("http://{host}:{}/status", plan::render::PORT);
    let answer = ctx.http.get(url).timeout(Duration::from_secs(2)).send().await;
    let status = match answer {
        Ok(answer) => answer.json().await,
        Err(error) => Err(error),
    };
    status.inspect_err(|error| debug!(%error, "the trainer does not tell its progress")).ok()
}

/// Whether the registry has the adapter, asked with the user's push secret.
async fn ask_registry(
    ctx: &Ctx,
    namespace: &str,
    adapter: &api::workspace::AdapterStatus,
    secret_name: Option<&str>,
) -> Result<RegistryAnswer, ObserveError> {
    let target: oci::Target = match adapter.image.parse() {
        Ok(target) => target,
        Err(error) => return Ok(RegistryAnswer::Unreachable(format!("{error}"))),
    };
    let folder = match login(ctx, namespace, secret_name).await? {
        Ok(folder) => folder,
        Err(error) => return Ok(RegistryAnswer::Unreachable(error)),
    };
    let host = adapter.image.split('/').next().unwrap_or_default();
    let options = oci::Options {
        docker_config: Some(folder.path().to_owned()),
        plain_http: ctx.settings.plain_http.iter().any(|plain| plain == host),
        attempts: 1,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(10),
        ..oci::Options::default()
    };
    let target = target.at_digest(&adapter.digest);
    let asked = tokio::task::spawn_blocking(move || {
        let answer = oci::blocking::resolve(&target, &options);
        // Until here the login had to be there.
        drop(folder);
        answer
    });
    Ok(match asked.await {
        Ok(Ok(_)) => RegistryAnswer::Found,
        Ok(Err(oci::Error::Registry(oci::registry::RegistryError::NotFound { .. }))) => {
            RegistryAnswer::Missing
        }
        Ok(Err(error)) => RegistryAnswer::Unreachable(oci::with_causes(&error)),
        Err(error) => RegistryAnswer::Unreachable(error.to_string()),
    })
}

/// A folder with Docker's configuration as the secret holds it; empty without a secret. It is gone when
/// it is dropped.
async fn login(
    ctx: &Ctx,
    namespace: &str,
    secret_name: Option<&str>,
) -> Result<Result<tempfile::TempDir, String>, ObserveError> {
    let failed = |error: std::io::Error| format!("cannot keep a login for a moment: {error}");
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return Ok(Err(failed(error))),
    };
    let Some(name) = secret_name else { return Ok(Ok(folder)) };
    let Some(secret) = secret(ctx, namespace, name).await? else {
        return Ok(Err(format!("the secret `{name}` is gone")));
    };
    let config = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
    let bytes = config.map(|value| value.0.clone()).unwrap_or_default();
    let written = tokio::fs::write(folder.path().join("config.json"), bytes).await;
    Ok(written.map(|()| folder).map_err(failed))
}
