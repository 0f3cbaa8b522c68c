//! The one place that writes: by server-side apply, with one field manager, and only what differs.

use std::sync::Arc;
use std::time::Duration;

use api::FineTuneWorkspace;
use api::workspace::{API_VERSION, FineTuneWorkspaceSpec, FineTuneWorkspaceStatus, KIND};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Resource, ResourceExt as _};
use plan::render::{is_lean, whole};
use plan::{ClusterFacts, Happening, Object, Plan, Pool, Removal, names};
use serde_json::json;
use tracing::{info, warn};

use crate::context::{Ctx, MANAGER};
use crate::observe;
use crate::obstacle::{conflict, refusal};
use crate::pools;
use crate::subject::Subject;
use crate::workspace::Error;

/// What could not be written, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {kind} `{name}`: {source}")]
pub(crate) struct ApplyError {
    action: &'static str,
    kind: &'static str,
    name: String,
    source: Box<kube::Error>,
}

/// How far a plan was carried out.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Not wholly, since something is in the way: the time after which to look again.
    pub(crate) again_after: Option<Duration>,
}

/// Carries out a plan. The event comes before what it tells of, what is mounted before what mounts it,
/// and the status last: a pass that is cut off anywhere is made good by the next one.
pub(crate) async fn apply(
    ctx: &Ctx,
    workspace: &FineTuneWorkspace,
    plan: &Plan,
) -> Result<Applied, ApplyError> {
    let subject = &Subject::new(KIND, workspace);
    let put_back = |what: &str| Happening::put_back(workspace, what);
    let Plan { delete, apply, status, happening, next: _, finalizer } = plan;
    for removal in delete {
        remove(ctx, &subject.namespace, removal).await?;
    }
    if let Some(wanted) = finalizer {
        put_finalizer(ctx, workspace, *wanted).await?;
    }
    if let Some(happening) = happening {
        tell(ctx, subject, happening).await?;
    }
    for object in apply {
        let is_put = match object {
            Object::ConfigMap(map) => put(ctx, subject, &put_back, &**map).await?,
            Object::Job(job) => put_job(ctx, subject, &put_back, job).await?,
            Object::Pool(pool) => put_pool(ctx, subject, &put_back, pool).await?,
        };
        if !is_put {
            // The next pass says so in the status.
            return Ok(Applied { again_after: Some(SOON) });
        }
    }
    let is_put = workspace.status.as_ref() == Some(status)
        || put_status(ctx, subject, &put_back, &json!(status)).await?;
    Ok(Applied { again_after: (!is_put).then_some(LATER) })
}

pub(crate) const SOON: Duration = Duration::from_millis(100);
/// Tells of a field that was put back.
pub(crate) type PutBack<'a> = &'a (dyn Fn(&str) -> Happening + Send + Sync);

pub(crate) const LATER: Duration = Duration::from_secs(30);

/// Applies an object; `false` where somebody else sets fields of it again and again, or it is refused.
pub(crate) async fn put<K>(
    ctx: &Ctx,
    subject: &Subject,
    put_back: PutBack<'_>,
    object: &K,
) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + k8s_openapi::Resource
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &subject.namespace);
    let what = (<K as k8s_openapi::Resource>::KIND, object.name_any());
    put_at(ctx, (subject, put_back), &api, what, object).await
}

/// Applies a Job. Of one that is there the cache does not hold all that has to be said again.
async fn put_job(
    ctx: &Ctx,
    subject: &Subject,
    put_back: PutBack<'_>,
    job: &Job,
) -> Result<bool, ApplyError> {
    if !is_lean(job) {
        return put(ctx, subject, put_back, job).await;
    }
    let name = job.name_any();
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &subject.namespace);
    let found = api.get_opt(&name).await.map_err(|source| failed("read", "Job", &name, source))?;
    // Gone meanwhile: the watch will say so.
    let Some(found) = found else { return Ok(false) };
    put(ctx, subject, put_back, &whole(job.clone(), &found)).await
}

/// Applies what nodes are made with.
async fn put_pool(
    ctx: &Ctx,
    subject: &Subject,
    put_back: PutBack<'_>,
    pool: &Pool,
) -> Result<bool, ApplyError> {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let known = plan::pool_kind(pool).zip(pools::api(&ctx.client, &pool.kind, &subject.namespace));
    let Some((kind, api)) = known else { return Ok(false) };
    put_at(ctx, (subject, put_back), &api, (kind, name), pool).await
}

async fn put_at<K, T>(
    ctx: &Ctx,
    (subject, put_back): (&Subject, PutBack<'_>),
    api: &Api<K>,
    (kind, name): (&'static str, String),
    object: &T,
) -> Result<bool, ApplyError>
where
    K: serde::de::DeserializeOwned + Clone + std::fmt::Debug,
    T: serde::Serialize + std::fmt::Debug,
{
    let wrong = |source| failed("apply", kind, &name, source);
    let patch = Patch::Apply(object);
    let answer = api.patch(&name, &PatchParams::apply(MANAGER), &patch).await;
    if let Some(what) = conflict(kind, &name, answer.as_ref().err()) {
        if !ctx.obstacles.may_put_back(&subject.key, &what) {
            return Ok(false);
        }
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &patch).await.map_err(wrong)?;
        tell_of_putting_back(ctx, subject, put_back, &what).await;
    } else if let Some(what) = refusal(kind, &name, answer.as_ref().err()) {
        warn!(what);
        ctx.obstacles.refused(&subject.key, what);
        return Ok(false);
    } else {
        answer.map_err(wrong)?;
    }
    info!(kind, object = name, "applied");
    Ok(true)
}

/// Writes the status; `false` where somebody else writes it, again and again.
pub(crate) async fn put_status(
    ctx: &Ctx,
    subject: &Subject,
    put_back: PutBack<'_>,
    status: &serde_json::Value,
) -> Result<bool, ApplyError> {
    let Subject { kind, namespace, name, .. } = subject;
    let api: Api<DynamicObject> =
        Api::namespaced_with(ctx.client.clone(), namespace, &subject.resource);
    let patch = Patch::Apply(json!({"apiVersion": API_VERSION, "kind": kind, "status": status}));
    let mut answer = api.patch_status(name, &PatchParams::apply(MANAGER), &patch).await;
    let contested = conflict(kind, name, answer.as_ref().err());
    if let Some(what) = &contested {
        if !ctx.obstacles.may_put_back(&subject.key, what) {
            return Ok(false);
        }
        answer = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &patch).await;
    }
    match answer {
        // Deleted meanwhile: there is nobody to tell.
        Err(kube::Error::Api(error)) if error.code == 404 => return Ok(true),
        Err(source) => return Err(failed("write the status of", kind, name, source)),
        Ok(written) => ctx.written.note(&written.metadata),
    }
    if let Some(what) = contested {
        tell_of_putting_back(ctx, subject, put_back, &what).await;
    }
    Ok(true)
}

/// Tells that somebody else had set a field of ours. It is put back already: nothing depends on this.
async fn tell_of_putting_back(ctx: &Ctx, subject: &Subject, put_back: PutBack<'_>, what: &str) {
    warn!(what, "put back what somebody else had set");
    if let Err(error) = tell(ctx, subject, &put_back(what)).await {
        warn!(%error, "cannot tell that something was put back");
    }
}

pub(crate) fn failed(
    action: &'static str,
    kind: &'static str,
    name: &str,
    source: kube::Error,
) -> ApplyError {
    ApplyError { action, kind, name: name.to_owned(), source: Box::new(source) }
}

pub(crate) async fn remove(
    ctx: &Ctx,
    namespace: &str,
    removal: &Removal,
) -> Result<(), ApplyError> {
    let Removal { kind, name, uid } = removal;
    let parameters = DeleteParams {
        // Pods go with their Job, and only this very object is meant.
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let client = ctx.client.clone();
    let gone = if let Some(api) = pools::api(&client, kind, namespace) {
        api.delete(name, &parameters).await.map(|_| ())
    } else if *kind == <Job as k8s_openapi::Resource>::KIND {
        Api::<Job>::namespaced(client, namespace).delete(name, &parameters).await.map(|_| ())
    } else if *kind == <HorizontalPodAutoscaler as k8s_openapi::Resource>::KIND {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client, namespace);
        api.delete(name, &parameters).await.map(|_| ())
    } else {
        Api::<ConfigMap>::namespaced(client, namespace).delete(name, &parameters).await.map(|_| ())
    };
    match gone {
        // Gone already, or another one has its name.
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(source) => Err(failed("delete", kind, name, source)),
        Ok(()) => {
            info!(kind, object = name, "deleted");
            Ok(())
        }
    }
}

/// Sets our finalizer, or takes it away: of all finalizers only ours is in our hands.
async fn put_finalizer(
    ctx: &Ctx,
    workspace: &FineTuneWorkspace,
    wanted: bool,
) -> Result<(), ApplyError> {
    let (namespace, name) = (workspace.namespace().unwrap_or_default(), workspace.name_any());
    let api: Api<FineTuneWorkspace> = Api::namespaced(ctx.client.clone(), &namespace);
    let finalizers: &[&str] = if wanted { &[names::FINALIZER] } else { &[] };
    let patch = Patch::Apply(json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        // This very workspace: another one is not made by this.
        "metadata": {"name": name, "uid": workspace.uid(), "finalizers": finalizers},
    }));
    match api.patch(&name, &PatchParams::apply(FINALIZERS).force(), &patch).await {
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(source) => Err(failed("set the finalizer of", KIND, &name, source)),
        Ok(_) => Ok(()),
    }
}

/// The field manager of finalizers: what it no longer names goes, and the status is another's.
const FINALIZERS: &str = "anneal-operator-finalizers";

/// Takes away what was made for workspaces that are gone, as after a finalizer was taken away by hand.
pub(crate) async fn sweep(
    ctx: &Ctx,
    scope: Option<&str>,
    is_there: impl Fn(&str, &str, &str) -> bool,
) -> Result<(), kube::Error> {
    let facts = ctx.served.facts(&ctx.client).await?;
    let (key, value) = names::MANAGED_BY;
    // What is not of the whole cluster goes with its workspace.
    let facts = ClusterFacts { resource_claims: false, ..facts };
    let all = pools::list(&ctx.client, &facts, "", &format!("{key}={value}")).await?;
    for pool in all {
        let labels = pool.metadata.labels.clone().unwrap_or_default();
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let namespace = label(names::NAMESPACE);
        let is_ours = scope.is_none_or(|scope| scope == namespace);
        if !is_ours || is_there(namespace, label(names::WORKSPACE), label(names::UID)) {
            continue;
        }
        let name = pool.metadata.name.clone().unwrap_or_default();
        let Some(api) = pools::api(&ctx.client, &pool.kind, namespace) else { continue };
        match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            Err(error) => return Err(error),
            Ok(_) => warn!(kind = pool.kind, object = name, "deleted: its workspace is gone"),
        }
    }
    Ok(())
}

/// Makes an event. Its name says what it tells, so that it is told once, also by a pass that repeats one
/// that was cut off.
pub(crate) async fn tell(
    ctx: &Ctx,
    subject: &Subject,
    happening: &Happening,
) -> Result<(), ApplyError> {
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), &subject.namespace);
    match api.create(&PostParams::default(), &event(ctx, subject, happening)).await {
        // Told before.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        // Refused for good, as by a quota or in a namespace that ends. The status says it as well.
        Err(kube::Error::Api(error)) if (400..429).contains(&error.code) => {
            warn!(%error, "an event is refused");
            Ok(())
        }
        Err(source) => Err(failed("tell an event of", subject.kind, &subject.name, source)),
        Ok(_) => Ok(()),
    }
}

fn event(ctx: &Ctx, subject: &Subject, happening: &Happening) -> Event {
    let Happening { is_warning, reason, note, key } = happening;
    // The API server takes at most 1 KiB.
    let note: String = note.chars().take(MOST_OF_A_NOTE).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{key}", subject.name)),
            namespace: Some(subject.namespace.clone()),
            ..ObjectMeta::default()
        },
        type_: Some(if *is_warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some((*reason).to_owned()),
        note: Some(note),
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        regarding: Some(subject.reference.clone()),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(ctx.identity.clone()),
        ..Event::default()
    }
}

const MOST_OF_A_NOTE: usize = 900;

/// Says in the status of an object that this version cannot read it.
pub(crate) async fn unreadable(ctx: Arc<Ctx>, object: InvalidObject) -> Result<(), Error> {
    let InvalidObject { error, metadata } = object;
    let name = metadata.name.clone().unwrap_or_default();
    warn!(name, error, "cannot read a workspace");
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let old: Option<FineTuneWorkspaceStatus> =
        observe::old_status::<FineTuneWorkspace, _>(&ctx, &namespace, &name).await?;
    let now = Time(Timestamp::now());
    let status = plan::unreadable(old.as_ref(), metadata.generation, &error, &now);
    if old.as_ref() != Some(&status) {
        // Only its name is known of it.
        let mut named = FineTuneWorkspace::new(&name, FineTuneWorkspaceSpec::default());
        named.metadata = metadata;
        let subject = Subject::new(KIND, &named);
        let put_back = |what: &str| Happening::put_back(&named, what);
        put_status(&ctx, &subject, &put_back, &json!(status)).await?;
    }
    Ok(())
}
