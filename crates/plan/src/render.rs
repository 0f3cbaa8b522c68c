//! The objects that should exist, one function and one file for each kind.

mod config_map;
mod dra;
mod existing;
mod gke;
mod hub;
mod job;
mod karpenter;
mod pod;
mod pool;
mod volumes;

pub(crate) use hub::token as hub_token;
pub use job::{is_lean, lean, whole};
pub use pod::PORT;
pub use pool::Pool;
pub use pool::kind;
pub(crate) use pool::{Wish, of_cluster, wish};
pub(crate) use volumes::{
    container_security, docker_config, empty, image, mount, pod_security, secret,
};

use std::time::Duration;

use api::Workspace;
use api::workspace::Resolved;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use serde_json::Value;

use crate::names::{self, Role, Run, label};
use crate::nodes::Placement;
use crate::observed::Observed;
use crate::phase::{Phase, report};
use crate::seen::{JobState, Seen, state};
use crate::stall;

/// An object to be applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Object {
    ConfigMap(Box<ConfigMap>),
    Job(Box<Job>),
    /// What nodes are made with.
    Pool(Box<Pool>),
}

/// Finished Jobs with the time after which they are cleared away. They get it only once the status tells
/// how the run ended: what is cleared away before would be run again.
pub(crate) fn with_ttl(run: &Run<'_>, observed: &Observed, ttl: Option<Duration>) -> Vec<Object> {
    let Some(ttl) = ttl else { return Vec::new() };
    let of_run = |job: &&Job| label(&job.metadata, names::REVISION) == Some(run.revision.as_str());
    let jobs = observed.jobs.iter().filter(of_run);
    let jobs = jobs.filter(|job| job.metadata.deletion_timestamp.is_none());
    let ended = jobs.filter(|job| matches!(state(job), JobState::Complete | JobState::Failed(_)));
    ended.filter_map(|job| job::with_ttl(job, ttl)).map(Box::new).map(Object::Job).collect()
}

/// What rendering needs to know.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) workspace: &'a Workspace,
    pub(crate) seen: &'a Seen<'a>,
    pub(crate) observed: &'a Observed,
    /// The nodes of a run that asks for some, where there can be some.
    pub(crate) placement: Option<&'a Placement<'a>>,
}

impl Context<'_> {
    /// What preflight found out: its own word, or the status's where its Job is gone.
    fn resolved(&self) -> Option<Resolved> {
        resolved(self.run, self.seen)
    }
}

/// What preflight found out: its own word, or the status's where its Job is gone.
pub(crate) fn resolved(run: &Run<'_>, seen: &Seen<'_>) -> Option<Resolved> {
    let report = seen.preflight.and_then(|job| report(job, seen));
    let status = run.raw.status.as_ref();
    report
        .and_then(|report| report.resolved)
        .or_else(|| status.and_then(|status| status.resolved.clone()))
}

/// The objects that should exist and do not, or differ from what they should be, in the order in which
/// they are applied: what a pod mounts comes before the pod.
pub(crate) fn render(context: &Context<'_>, phase: &Phase) -> Vec<Object> {
    let mut objects = Vec::new();
    objects.extend(pool::pool(context, phase).map(Box::new).map(Object::Pool));
    match phase {
        Phase::Rejected { .. }
        | Phase::NoNodes { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => {}
        Phase::Preflight { .. } => {
            objects.extend(config_map::missing(context));
            objects.push(preflight(context, false));
        }
        Phase::Ending { .. } => {
            objects.extend(running(context).map(|mut job| {
                stall::mark(&mut job, context.workspace.limits.stall);
                Object::Job(Box::new(job))
            }));
        }
        Phase::Suspended => {
            if context.seen.preflight.is_some_and(|job| state(job) == JobState::Active) {
                objects.push(preflight(context, true));
            }
            // In a queue the Job is deleted: the queue would let it go again.
            let is_active =
                context.seen.trainings.last().is_some_and(|job| state(job) == JobState::Active);
            if is_active && context.workspace.compute.queue_name.is_none() {
                objects.push(training(context, true));
            }
        }
        Phase::Queued => {
            objects.extend(config_map::missing(context));
            objects.push(training(context, held(context)));
        }
        Phase::Retrying { .. } => {
            objects.extend(config_map::missing(context));
            let number = context.seen.last_training().map_or(0, |(number, _)| number + 1);
            objects.push(Object::Job(Box::new(job::job(context, Role::Train, number, true))));
        }
        // What may change while the Job runs, such as the deadline, does.
        Phase::Provisioning { .. }
        | Phase::Training
        | Phase::Evaluating
        | Phase::Publishing { .. } => {
            objects.extend(running(context).map(Box::new).map(Object::Job));
        }
    }
    objects.retain(|object| !is_there(object, context.observed));
    objects
}

/// Whether a Job is to wait: one that is not there yet is made suspended, and one in a queue is let go
/// by the queue.
fn held(context: &Context<'_>) -> bool {
    context.seen.trainings.is_empty() || context.workspace.compute.queue_name.is_some()
}

fn preflight(context: &Context<'_>, suspend: bool) -> Object {
    let rendered = job::job(context, Role::Preflight, 0, suspend);
    Object::Job(Box::new(job::keep_what_is_fixed(rendered, context.seen.preflight)))
}

fn training(context: &Context<'_>, suspend: bool) -> Object {
    let last = context.seen.last_training();
    let rendered = job::job(context, Role::Train, last.map_or(0, |(number, _)| number), suspend);
    Object::Job(Box::new(job::keep_what_is_fixed(rendered, last.map(|(_, job)| job))))
}

/// The last training Job, where it runs: as it is, with what the spec says by now.
fn running(context: &Context<'_>) -> Option<Job> {
    let (number, found) = context.seen.last_training()?;
    let is_active = state(found) == JobState::Active;
    is_active.then(|| {
        let mut job = job::job(context, Role::Train, number, false);
        job::keep_queue(&mut job, found);
        job::keep_what_is_fixed(job, Some(found))
    })
}

/// Whether the object is in the cluster, with every field that we would set; or its predecessor of the
/// same name, which is on its way out.
fn is_there(object: &Object, observed: &Observed) -> bool {
    match object {
        Object::ConfigMap(wanted) => observed.config_maps.iter().any(|found| {
            found.metadata.name == wanted.metadata.name
                && (found.metadata.deletion_timestamp.is_some() || covers(found, wanted))
        }),
        Object::Job(wanted) => observed.jobs.iter().any(|found| {
            found.metadata.name == wanted.metadata.name
                && (found.metadata.deletion_timestamp.is_some()
                    || (covers(found, wanted) && deadline(found) == deadline(wanted)))
        }),
        Object::Pool(wanted) => observed.pools.iter().any(|found| {
            found.kind == wanted.kind
                && found.metadata.name == wanted.metadata.name
                && (found.metadata.deletion_timestamp.is_some() || covers(found, wanted))
        }),
    }
}

/// A deadline that is there no more is a difference too.
fn deadline(job: &Job) -> Option<i64> {
    job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds)
}

pub(crate) fn covers<T: Serialize>(found: &T, wanted: &T) -> bool {
    let value = |object: &T| serde_json::to_value(object).unwrap_or_default();
    is_subset(&value(wanted), &value(found))
}

/// Whether every field of `wanted` is in `found` with the same value.
fn is_subset(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().all(|(name, value)| {
            found.get(name).is_some_and(|other| is_subset(value, other))
                || matches!(value, Value::Null)
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(a, b)| is_subset(a, b))
        }
        (wanted, found) => wanted == found,
    }
}
