//! What is done for one model server: look, decide, act.

pub(crate) mod apply;
pub(crate) mod observe;
pub(crate) mod watch;

use std::sync::Arc;
use std::time::Instant;

use api::ModelServer;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use plan::Next;
use tracing::{Instrument as _, info_span, warn};

use crate::apply::SOON;
use crate::context::Ctx;
use crate::workspace::{Error, RETRY, Watched};
use watch::Children;

/// A server as it comes from a watch: what cannot be read does not end the watch.
pub(crate) type WatchedServer = DeserializeGuard<ModelServer>;

/// What all passes over servers share.
pub(crate) struct ServerCtx {
    pub(crate) shared: Arc<Ctx>,
    pub(crate) children: Children,
    /// What adapters may be taken from.
    pub(crate) workspaces: Store<Watched>,
}

/// Looks, decides, acts. Every decision is in `plan`; every write is in `apply`.
pub(crate) fn reconcile(
    watched: Arc<WatchedServer>,
    ctx: Arc<ServerCtx>,
) -> BoxFuture<'static, Result<Action, Error>> {
    let start = Instant::now();
    let metadata = kube::Resource::meta(&*watched);
    let span = info_span!(
        "server",
        namespace = metadata.namespace.as_deref().unwrap_or_default(),
        server = metadata.name.as_deref().unwrap_or_default(),
    );
    async move {
        let result = match Arc::unwrap_or_clone(watched).0 {
            Ok(server) => one(server, &ctx).await,
            Err(unreadable) => apply::unreadable(&ctx, unreadable).await.map(|()| Next::OnChange),
        };
        ctx.shared.metrics.server_pass(start.elapsed(), &result);
        result.map(|next| match next {
            Next::OnChange => Action::await_change(),
            Next::After(time) => Action::requeue(time),
        })
    }
    .instrument(span)
    .boxed()
}

async fn one(server: ModelServer, ctx: &ServerCtx) -> Result<Next, Error> {
    if server.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it.
        return Ok(Next::OnChange);
    }
    if ctx.shared.written.is_newer_than(&server.metadata) {
        return Ok(Next::After(SOON));
    }
    let seen = observe::observe(ctx, &server).await;
    let plan = plan::plan_server(&server, &seen);
    let again = apply::apply(ctx, &server, &seen, &plan).await?;
    Ok(again.map_or(plan.next, Next::After))
}

/// Tries again soon.
#[expect(clippy::needless_pass_by_value, reason = "the controller calls it so")]
pub(crate) fn on_error(watched: Arc<WatchedServer>, error: &Error, _: Arc<ServerCtx>) -> Action {
    let metadata = kube::Resource::meta(&*watched);
    let (namespace, server) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    warn!(namespace, server, error = %error, "will be tried again");
    Action::requeue(RETRY)
}
