//! The one place that writes for servers: objects as `crate::apply` does it, and what pods are told.

use std::fmt::Debug;
use std::time::Duration;

use api::ModelServer;
use api::model_server::{KIND, ModelServerSpec};
use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Resource, ResourceExt as _};
use plan::server::observed::ServerObserved;
use plan::server::{put_back, unreadable as unreadable_status};
use plan::{Happening, ServerObject, ServerPlan, Telling, names};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{info, warn};

use super::ServerCtx;
use super::observe::url;
use crate::apply::{ApplyError, LATER, PutBack, SOON, failed, put, put_status, remove, tell};
use crate::context::Ctx;
use crate::observe::old_status;
use crate::subject::Subject;
use crate::workspace::Error;

/// Longest wait for a pod that is told something.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries out a plan: the status last, so that a pass that is cut off anywhere is made good by the next one.
/// Gives the time after which to look again where something is in the way.
pub(crate) async fn apply(
    ctx: &ServerCtx,
    server: &ModelServer,
    seen: &ServerObserved,
    plan: &ServerPlan,
) -> Result<Option<Duration>, ApplyError> {
    let (shared, subject) = (&*ctx.shared, &Subject::new(KIND, server));
    let tell_of = |what: &str| put_back(server, what);
    let ServerPlan { delete, apply, tell: tellings, status, happening, next: _ } = plan;
    for removal in delete {
        remove(shared, &subject.namespace, removal).await?;
    }
    if let Some(happening) = happening {
        tell(shared, subject, happening).await?;
    }
    for object in apply {
        if !put_object(shared, subject, &tell_of, (object, seen)).await? {
            return Ok(Some(SOON));
        }
    }
    join_all(tellings.iter().map(|telling| order(shared, telling))).await;
    let is_put = server.status.as_ref() == Some(status)
        || put_status(shared, subject, &tell_of, &json!(status)).await?;
    Ok((!is_put).then_some(LATER))
}

async fn put_object(
    ctx: &Ctx,
    subject: &Subject,
    tell_of: PutBack<'_>,
    (object, seen): (&ServerObject, &ServerObserved),
) -> Result<bool, ApplyError> {
    let by = (subject, tell_of);
    match object {
        ServerObject::ConfigMap(one) => put_own(ctx, by, &**one, seen.config_map.is_some()).await,
        ServerObject::NetworkPolicy(one) => put_own(ctx, by, &**one, seen.policy.is_some()).await,
        ServerObject::Deployment(one) => put_own(ctx, by, &**one, seen.deployment.is_some()).await,
        ServerObject::Service(one) => put_own(ctx, by, &**one, seen.service.is_some()).await,
        ServerObject::PodDisruptionBudget(one) => {
            put_own(ctx, by, &**one, seen.budget.is_some()).await
        }
        ServerObject::HorizontalPodAutoscaler(one) => {
            put_own(ctx, by, &**one, seen.autoscaler.is_some()).await
        }
    }
}

/// Applies an object, unless somebody else's has its name: these names are the user's own words.
async fn put_own<K>(
    ctx: &Ctx,
    (subject, tell_of): (&Subject, PutBack<'_>),
    object: &K,
    is_known: bool,
) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + k8s_openapi::Resource
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let (kind, name) = (<K as k8s_openapi::Resource>::KIND, object.name_any());
    if !is_known {
        let api: Api<K> = Api::namespaced(ctx.client.clone(), &subject.namespace);
        let found = api.get_metadata_opt(&name).await;
        let found = found.map_err(|source| failed("look for", kind, &name, source))?;
        let is_ours = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(names::SERVER) == Some(&subject.name)
        };
        if found.is_some_and(|found| !is_ours(found.labels())) {
            let what = format!("there is a {kind} `{name}` that is not this server's");
            warn!(what);
            ctx.obstacles.refused(&subject.key, what);
            return Ok(false);
        }
    }
    put(ctx, subject, tell_of, object).await
}

/// Tells a pod what to hold. One that does not hear it now is told again by the next pass.
async fn order(ctx: &Ctx, telling: &Telling) {
    let Telling { pod, address, declaration } = telling;
    let body = json!(declaration).to_string();
    let request = ctx.http.put(url(address)).timeout(PATIENCE).body(body);
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    match answer {
        Ok(_) => info!(pod, sequence = declaration.sequence, "told what to hold"),
        Err(error) => {
            warn!(
                pod,
                error = oci::with_causes(&error.without_url()),
                "cannot tell it what to hold"
            );
        }
    }
}

/// Says in the status of a server that this version cannot read it.
pub(super) async fn unreadable(ctx: &ServerCtx, object: InvalidObject) -> Result<(), Error> {
    let InvalidObject { error, metadata } = object;
    warn!(name = metadata.name, error, "cannot read a server");
    let mut named =
        ModelServer::new(metadata.name.as_deref().unwrap_or_default(), ModelServerSpec::default());
    named.metadata = metadata;
    let subject = Subject::new(KIND, &named);
    let (namespace, name) = (&subject.namespace, &subject.name);
    named.status = old_status::<ModelServer, _>(&ctx.shared, namespace, name).await?;
    let status = unreadable_status(&named, &error, &Time(Timestamp::now()));
    let tell_of = |what: &str| -> Happening { put_back(&named, what) };
    if named.status.as_ref() != Some(&status) {
        put_status(&ctx.shared, &subject, &tell_of, &json!(status)).await?;
    }
    Ok(())
}
