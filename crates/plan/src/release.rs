//! Giving nodes back: what was made for them goes when the run has ended, in whatever way, and with the
//! workspace, which has a finalizer until then.

use std::time::Duration;

use api::workspace::Provisioner;

use crate::decide::{Next, Plan, Removal, removal, removals, unfinished};
use crate::names::{self, FINALIZER, Run, label};
use crate::observed::Observed;
use crate::render::{Context, Pool, Wish, kind, of_cluster};
use crate::uses;

/// Objects of the whole cluster that go are looked at again after this time: nothing tells of them.
const SOON: Duration = Duration::from_secs(5);

/// Takes away pools that should not be, and sets or takes away the finalizer.
pub(crate) fn pools(plan: &mut Plan, context: &Context<'_>, wish: Wish) {
    let (run, observed) = (context.run, context.observed);
    let is_current = |pool: &&Pool| label(&pool.metadata, names::REVISION) == Some(&run.revision);
    let gone = observed.pools.iter().filter(|pool| !is_current(pool) || wish == Wish::Gone);
    let gone = gone.filter_map(taken).collect::<Vec<_>>();
    plan.delete.extend(gone);
    let makes = context.placement.is_some_and(|placement| {
        matches!(placement.provisioner, Provisioner::Karpenter | Provisioner::Gke)
    });
    finalizer(plan, run, observed, makes && wish == Wish::Make);
    // A run that waits, or was suspended: its status tells when the node was given back.
    if wish == Wish::Gone && plan.next == Next::OnChange {
        until_given_back(plan);
    }
}

/// Nothing tells of a node's end.
fn until_given_back(plan: &mut Plan) {
    if plan.status.capacity.as_ref().is_some_and(uses::holds) {
        plan.next = Next::After(SOON);
    }
}

/// A run that has ended, as its status tells, has no nodes.
pub(crate) fn settled(plan: &mut Plan, run: &Run<'_>, observed: &Observed) {
    plan.delete.extend(observed.pools.iter().filter_map(taken));
    plan.status.capacity = uses::released(plan.status.capacity.take(), observed);
    until_given_back(plan);
    finalizer(plan, run, observed, false);
}

/// A workspace that is being deleted: its Jobs would go by themselves only after the finalizer.
pub(crate) fn deleted(run: &Run<'_>, observed: &Observed) -> Plan {
    let mut delete = unfinished(run, observed);
    let of_others = removals(observed, &|metadata| {
        label(metadata, names::REVISION).is_some_and(|revision| revision != run.revision)
    });
    delete.extend(of_others);
    delete.extend(observed.pools.iter().filter_map(taken));
    let mut plan = Plan {
        delete,
        apply: Vec::new(),
        status: run.raw.status.clone().unwrap_or_default(),
        happening: None,
        next: Next::OnChange,
        finalizer: None,
    };
    finalizer(&mut plan, run, observed, false);
    plan
}

fn taken(pool: &Pool) -> Option<Removal> {
    let goes_already = pool.metadata.deletion_timestamp.is_some();
    kind(pool).filter(|_| !goes_already).map(|kind| removal(kind, &pool.metadata))
}

/// The finalizer is there for as long as there is, or is about to be, an object that the workspace does
/// not own.
fn finalizer(plan: &mut Plan, run: &Run<'_>, observed: &Observed, makes: bool) {
    let all = run.raw.metadata.finalizers.as_deref().unwrap_or_default();
    let is_there = all.iter().any(|one| one == FINALIZER);
    let has_pools = observed.pools.iter().any(|pool| of_cluster(&pool.kind));
    if makes && !is_there {
        plan.finalizer = Some(true);
    } else if is_there && !makes && !has_pools {
        plan.finalizer = Some(false);
    }
    if !makes && has_pools && !plan.delete.is_empty() {
        plan.next = Next::After(SOON);
    }
}
