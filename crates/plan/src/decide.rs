//! The one decision of the operator: from a workspace and what was seen, to what should be.

use std::time::Duration;

use api::condition::{READY, Reason};
use api::workspace::{CapacityStatus, FineTuneWorkspaceStatus, Phase as Word};
use api::{Fault, FineTuneWorkspace, Workspace, validate};
use k8s_openapi::Resource;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use crate::admit::cluster_faults;
use crate::names::{self, Run, label};
use crate::nodes::{Needs, placement};
use crate::observed::Observed;
use crate::phase::{Phase, phase, with_nodes};
use crate::release;
use crate::render::{Context, Object, render, resolved, wish, with_ttl};
use crate::seen::{JobState, Seen, state};
use crate::status::{judged, reason, status};
use crate::trouble::{self, Trouble};
use crate::uses;

/// What is to be done, in this order: `delete`, `happening`, `apply`, `status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Objects that should no longer be.
    pub delete: Vec<Removal>,
    /// Objects that should be and are not, or not as they should be. Empty in steady state.
    pub apply: Vec<Object>,
    /// The whole status, also where it has not changed.
    pub status: FineTuneWorkspaceStatus,
    /// What to tell as an event: the phase or its reason is another than it was.
    pub happening: Option<Happening>,
    pub next: Next,
    /// Whether the workspace is to have our finalizer, where that is not as it is: it is set before what
    /// it is for is made, and taken away once that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finalizer: Option<bool>,
}

/// An object that is to be deleted, and no other of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    pub kind: &'static str,
    pub name: String,
    pub uid: Option<String>,
}

/// An event on the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// Something that a person should look at.
    pub is_warning: bool,
    /// The reason of the condition `Ready`.
    pub reason: &'static str,
    pub note: String,
    /// The same on each pass until the status tells of it, so that a pass that was cut off between the
    /// two does not tell it twice.
    pub key: String,
}

impl Happening {
    /// Somebody else had set a field of ours.
    pub fn put_back(raw: &FineTuneWorkspace, what: &str) -> Self {
        Self::of_putting_back(what, names::event_key(raw, &format!("put back: {what}")))
    }

    pub(crate) fn of_putting_back(what: &str, key: String) -> Self {
        let note = format!("{what}; the operator has set it back");
        Self { is_warning: true, reason: Reason::FieldConflict.as_str(), note, key }
    }
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Next {
    /// When something changes in the cluster.
    OnChange,
    /// Also after this time: what is waited for is not in the cluster.
    After(Duration),
}

/// Decides what should exist, what the status says and when to look again.
///
/// # Guarantees
/// The same arguments give the same plan. A plan that was carried out, wholly or in part, and is made
/// anew from what then is seen, goes on from there.
pub fn plan(raw: &FineTuneWorkspace, observed: &Observed) -> Plan {
    let run = Run::new(raw);
    let seen = Seen::new(&run, observed);
    if raw.metadata.deletion_timestamp.is_some() {
        return release::deleted(&run, observed);
    }
    let workspace = match accept(raw) {
        Ok(workspace) => workspace,
        Err(faults) => {
            let phase = Phase::Rejected { reason: Reason::InvalidSpec, faults };
            let capacity = run.kept().and_then(|status| status.capacity.clone());
            return conclude(&run, &phase, &seen, observed, (Vec::new(), capacity));
        }
    };
    if is_settled(raw, &run) {
        return settled(&workspace, &run, observed);
    }
    let reopened = is_reopened(raw, &run);
    let found = resolved(&run, &seen).unwrap_or_default();
    let needs = Needs { memory: found.gpu_memory.unwrap_or(found.memory), smaller: &found.smaller };
    let phase = if reopened {
        Phase::Preflight { trouble: None }
    } else {
        phase(&workspace, &seen, observed)
    };
    let interruptions = uses::interruptions(&run, &phase, &seen, observed);
    let placed = placement(&workspace, &needs, interruptions, &seen, observed);
    let phase = if reopened { phase } else { with_nodes(phase, placed.as_ref(), observed) };
    let placement = placed.as_ref().and_then(|placed| placed.as_ref().ok());
    let context = Context { run: &run, workspace: &workspace, seen: &seen, observed, placement };
    // What could not be applied is left for a while.
    let waits = reopened || observed.obstacle.is_some();
    let apply = if waits { Vec::new() } else { render(&context, &phase) };
    let wish = wish(&context, &phase);
    let capacity = uses::capacity(&context, &phase, wish);
    let mut plan = conclude(&run, &phase, &seen, observed, (apply, capacity));
    release::pools(&mut plan, &context, wish);
    if reopened {
        plan.delete.extend(everything(&run, observed));
    }
    if matches!(phase, Phase::Suspended) && workspace.compute.queue_name.is_some() {
        // A queue would let a suspended Job go again: without the Job it gives the quota back.
        plan.delete.extend(unfinished(&run, observed));
    }
    plan
}

/// The workspace, if it holds no fault and asks for nothing that only a local run has.
fn accept(raw: &FineTuneWorkspace) -> Result<Workspace, Vec<Fault>> {
    let workspace = validate(raw)?;
    let faults = cluster_faults(&workspace);
    if faults.is_empty() { Ok(workspace) } else { Err(faults) }
}

fn conclude(
    run: &Run<'_>,
    phase: &Phase,
    seen: &Seen<'_>,
    observed: &Observed,
    (apply, capacity): (Vec<Object>, Option<CapacityStatus>),
) -> Plan {
    let next = next(phase, seen, observed, capacity.is_some());
    Plan {
        // What has failed and may still run is taken away by the next pass, once the status tells of it.
        delete: superseded(run, observed),
        apply,
        status: status(run, phase, seen, observed, capacity),
        happening: happening(run.raw, phase, observed),
        next,
        finalizer: None,
    }
}

/// Whether this revision has ended, and the user has not asked for anything since.
fn is_settled(raw: &FineTuneWorkspace, run: &Run<'_>) -> bool {
    let Some(status) = raw.status.as_ref().filter(|status| is_of(status, run)) else {
        return false;
    };
    match status.phase {
        // A word alone is not believed: it takes the adapter that it speaks of.
        Some(Word::Succeeded) => status.adapter.is_some(),
        Some(Word::Failed) => status.observed_generation == raw.metadata.generation,
        _ => false,
    }
}

/// Whether this revision has failed, and the user has edited the workspace since: it starts anew.
fn is_reopened(raw: &FineTuneWorkspace, run: &Run<'_>) -> bool {
    raw.status.as_ref().filter(|status| is_of(status, run)).is_some_and(|status| {
        status.phase == Some(Word::Failed) && status.observed_generation != raw.metadata.generation
    })
}

fn is_of(status: &FineTuneWorkspaceStatus, run: &Run<'_>) -> bool {
    status.revision.as_deref() == Some(&run.revision)
}

/// What has ended stays so, whatever becomes of its Jobs; only what should not run is taken away, and
/// what has ended is given its time to live. A gate may be changed after the run.
fn settled(workspace: &Workspace, run: &Run<'_>, observed: &Observed) -> Plan {
    let raw = run.raw;
    let apply = with_ttl(run, observed, workspace.limits.ttl_after_finished);
    let mut status = raw.status.clone().unwrap_or_default();
    status.observed_generation = raw.metadata.generation;
    for condition in &mut status.conditions {
        condition.observed_generation = raw.metadata.generation;
    }
    let phase = judged(&mut status, run, workspace.evaluation.gate.as_ref(), observed);
    let happening = phase.and_then(|phase| happening(raw, &phase, observed));
    let mut delete = superseded(run, observed);
    delete.extend(unfinished(run, observed));
    let mut plan = Plan { delete, apply, status, happening, next: Next::OnChange, finalizer: None };
    release::settled(&mut plan, run, observed);
    plan
}

/// Objects of other revisions.
fn superseded(run: &Run<'_>, observed: &Observed) -> Vec<Removal> {
    let is_other = |metadata: &&ObjectMeta| {
        label(metadata, names::REVISION).is_some_and(|revision| revision != run.revision)
    };
    removals(observed, &is_other)
}

/// Every object of this revision.
fn everything(run: &Run<'_>, observed: &Observed) -> Vec<Removal> {
    removals(observed, &|metadata| label(metadata, names::REVISION) == Some(&run.revision))
}

pub(crate) fn removals(
    observed: &Observed,
    is_meant: &dyn Fn(&&ObjectMeta) -> bool,
) -> Vec<Removal> {
    let stays = |metadata: &&ObjectMeta| metadata.deletion_timestamp.is_none();
    let jobs = observed.jobs.iter().map(|job| &job.metadata);
    let maps = observed.config_maps.iter().map(|map| &map.metadata);
    let jobs = jobs.filter(is_meant).filter(stays).map(|metadata| removal(Job::KIND, metadata));
    let maps = maps.filter(is_meant).filter(stays);
    jobs.chain(maps.map(|metadata| removal(ConfigMap::KIND, metadata))).collect()
}

/// Jobs of this revision that run or may run.
pub(crate) fn unfinished(run: &Run<'_>, observed: &Observed) -> Vec<Removal> {
    observed
        .jobs
        .iter()
        .filter(|job| label(&job.metadata, names::REVISION) == Some(&run.revision))
        .filter(|job| job.metadata.deletion_timestamp.is_none())
        .filter(|job| matches!(state(job), JobState::Active | JobState::Suspended))
        .map(|job| removal(Job::KIND, &job.metadata))
        .collect()
}

pub(crate) fn removal(kind: &'static str, metadata: &ObjectMeta) -> Removal {
    Removal { kind, name: metadata.name.clone().unwrap_or_default(), uid: metadata.uid.clone() }
}

/// An event, unless the last pass told it already.
fn happening(raw: &FineTuneWorkspace, phase: &Phase, observed: &Observed) -> Option<Happening> {
    let (reason, note) = reason(phase, observed);
    let old = raw.status.as_ref();
    let ready = old.and_then(|old| old.conditions.iter().find(|one| one.type_ == READY));
    let is_told = ready.is_some_and(|ready| ready.reason == reason.as_str());
    let is_warning = match phase {
        Phase::Rejected { .. }
        | Phase::Failed { .. }
        | Phase::Retrying { .. }
        | Phase::Ending { .. } => true,
        Phase::NoNodes { .. } => true,
        Phase::Preflight { trouble }
        | Phase::Provisioning { trouble }
        | Phase::Publishing { trouble } => trouble.is_some(),
        Phase::Suspended | Phase::Queued | Phase::Training | Phase::Evaluating => false,
        Phase::Succeeded { gate, .. } => gate.as_ref().is_some_and(|gate| !gate.passed),
    };
    let is_warning =
        is_warning || observed.obstacle.as_ref().is_some_and(|one| one.reason == reason);
    let key = names::event_key(raw, reason.as_str());
    (!is_told).then_some(Happening { is_warning, reason: reason.as_str(), note, key })
}

/// When to look again: what the cluster does not tell is asked for. With many workspaces that wait, each look
/// at them is one that another one's change waits for.
fn next(phase: &Phase, seen: &Seen<'_>, observed: &Observed, has_nodes: bool) -> Next {
    const PROGRESS: Next = Next::After(Duration::from_secs(10));
    const OUTSIDE: Next = Next::After(Duration::from_secs(15));
    if let Some(obstacle) = &observed.obstacle {
        let left = obstacle.until.0.duration_since(observed.now.0);
        return Next::After(left.try_into().unwrap_or_default());
    }
    match phase {
        Phase::Rejected { reason: Reason::InvalidSecret | Reason::NoGpuFits, .. }
        | Phase::NoNodes { .. }
        | Phase::Publishing { .. } => OUTSIDE,
        Phase::Training | Phase::Ending { .. } | Phase::Evaluating => PROGRESS,
        Phase::Preflight { trouble } | Phase::Provisioning { trouble } => {
            pod_awaited(trouble.as_ref(), seen, observed, has_nodes)
        }
        Phase::Rejected { .. }
        | Phase::Suspended
        | Phase::Queued
        | Phase::Retrying { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => Next::OnChange,
    }
}

/// The same while a pod is to start. The scheduler's word comes by itself, as does the kubelet's; how long an
/// image may take, a quota and nodes that are made are asked for.
fn pod_awaited(
    trouble: Option<&Trouble>,
    seen: &Seen<'_>,
    observed: &Observed,
    has_nodes: bool,
) -> Next {
    const SOON: Duration = Duration::from_secs(10);
    const PATIENCE: Next = Next::After(Duration::from_mins(1));
    let job = seen.last_job().filter(|job| state(job) == JobState::Active);
    let asked = job.and_then(|job| trouble::until_asked(job, seen, observed.now.0));
    match (trouble, asked) {
        (None, Some(left)) if left.is_zero() => Next::After(SOON),
        (None, Some(left)) => Next::After(left.try_into().unwrap_or(SOON)),
        (Some(trouble), _) if trouble.reason != Reason::Unschedulable => PATIENCE,
        (Some(_) | None, _) if has_nodes => PATIENCE,
        (Some(_) | None, _) => Next::OnChange,
    }
}
