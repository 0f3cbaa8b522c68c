//! What is done for one workspace: look, decide, act.

use std::sync::Arc;
use std::time::Duration;

use api::FineTuneWorkspace;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use plan::Next;
use tracing::{Instrument as _, Span, info_span, warn};

use crate::apply::{self, ApplyError, SOON};
use crate::context::Ctx;
use crate::observe::{self, ObserveError};

/// Input or output that failed, and will be tried again. A user's mistake is never one of these.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// A workspace as it comes from a watch: what cannot be read does not end the watch.
pub(crate) type Watched = DeserializeGuard<FineTuneWorkspace>;

/// Time after which input or output that failed is tried again. Conflicts and restarts of the API
/// server pass within seconds.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// Looks, decides, acts. Every decision is in `plan`; every write is in `apply`.
pub(crate) fn reconcile(
    watched: Arc<Watched>,
    ctx: Arc<Ctx>,
) -> BoxFuture<'static, Result<Action, Error>> {
    let timer = ctx.metrics.reconcile_started(ObjectRef::from_obj(&*watched));
    let pass = match Arc::unwrap_or_clone(watched).0 {
        Ok(workspace) => {
            let span = span(&workspace);
            one(workspace, ctx).instrument(span).boxed()
        }
        Err(unreadable) => {
            apply::unreadable(ctx, unreadable).map_ok(|()| Next::OnChange).err_into().boxed()
        }
    };
    async move {
        let result = pass.await;
        timer.done(&result);
        result.map(|next| match next {
            Next::OnChange => Action::await_change(),
            Next::After(time) => Action::requeue(time),
        })
    }
    .boxed()
}

async fn one(workspace: FineTuneWorkspace, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let is_held = workspace.finalizers().iter().any(|one| one == plan::names::FINALIZER);
    if workspace.metadata.deletion_timestamp.is_some() && !is_held {
        // What it owns goes with it.
        return Ok(Next::OnChange);
    }
    if ctx.written.is_newer_than(&workspace.metadata) {
        return Ok(Next::After(SOON));
    }
    let seen = observe::observe(&ctx, &workspace).await?;
    let plan = plan::plan(&workspace, &seen);
    ctx.metrics.runs.saw(&workspace, &seen, &plan);
    let applied = apply::apply(&ctx, &workspace, &plan).await?;
    Ok(applied.again_after.map_or(plan.next, Next::After))
}

fn span(workspace: &FineTuneWorkspace) -> Span {
    let metadata = &workspace.metadata;
    info_span!(
        "workspace",
        namespace = metadata.namespace.as_deref().unwrap_or_default(),
        workspace = metadata.name.as_deref().unwrap_or_default(),
        revision = plan::workspace_revision(&workspace.spec),
    )
}

/// Tries again soon.
#[expect(clippy::needless_pass_by_value, reason = "the controller calls it so")]
pub(crate) fn on_error(watched: Arc<Watched>, error: &Error, ctx: Arc<Ctx>) -> Action {
    let metadata = kube::Resource::meta(&*watched);
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    warn!(namespace, name, error = %error, "will be tried again");
    ctx.metrics.reconcile_failed();
    Action::requeue(RETRY)
}
