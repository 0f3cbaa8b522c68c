//! The Jobs: one for preflight, and one for each training that starts with another micro-batch.

use std::time::Duration;

use api::termination::exit_code;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Context, pod, pool};
use crate::names::{self, PROVISIONER, QUEUE, Role, label};
use crate::nodes::word;
use crate::seen::{JobState, state};

/// The Job of a role. `number` counts the training Jobs before it.
pub(super) fn job(context: &Context<'_>, role: Role, number: u32, suspend: bool) -> Job {
    let (run, limits) = (context.run, &context.workspace.limits);
    let name = match role {
        Role::Preflight => run.preflight(),
        Role::Train => run.training(number),
    };
    let mut metadata = run.metadata(name, Some(role));
    let queue = context.workspace.compute.queue_name.clone().filter(|_| role == Role::Train);
    if let (Some(queue), Some(labels)) = (queue, &mut metadata.labels) {
        labels.insert(QUEUE.to_owned(), queue);
    }
    let placement = context.placement.filter(|_| role == Role::Train);
    if let (Some(placement), Some(labels)) = (placement, &mut metadata.labels) {
        labels.insert(PROVISIONER.to_owned(), word(placement.provisioner).to_owned());
    }
    let deadline = limits.deadline.filter(|_| role == Role::Train);
    let deadline = deadline.map(|time| (time.as_secs() as i64 - spent(context, number)).max(1));
    // Each training Job before this one was a retry as well.
    let retries = limits.retries.saturating_sub(number);
    Job {
        metadata,
        spec: Some(JobSpec {
            suspend: Some(suspend),
            backoff_limit: i32::try_from(retries).ok(),
            active_deadline_seconds: deadline,
            pod_failure_policy: Some(failure_policy()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(run.labels(Some(role))),
                    annotations: placement.and_then(pool::annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::pod(context, role, number)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// Seconds that earlier training Jobs took of the deadline; waiting in a queue does not count.
fn spent(context: &Context<'_>, number: u32) -> i64 {
    let earlier = context.seen.trainings.iter().filter(|job| names::number(job) < number);
    let took = earlier.filter_map(|job| {
        let start = job.status.as_ref()?.start_time.as_ref()?;
        match state(job) {
            JobState::Failed(end) => {
                Some(end.last_transition_time.as_ref()?.0.duration_since(start.0).as_secs())
            }
            JobState::Suspended | JobState::Active | JobState::Complete => None,
        }
    });
    took.sum()
}

/// Which ends count, and which are final. The rules are tried in this order.
fn failure_policy() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
        }]),
        ..PodFailurePolicyRule::default()
    };
    // A mistake of the user's stays one. Without memory another start with the same numbers is of no
    // use: the operator makes a Job with smaller ones. 137 may be either: the operator sees which.
    let last = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(pod::CONTAINER.to_owned()),
            operator: "In".to_owned(),
            values: vec![
                exit_code::CONFIGURATION,
                exit_code::CREDENTIAL,
                exit_code::OUT_OF_MEMORY,
                exit_code::KILLED,
            ],
        }),
        ..PodFailurePolicyRule::default()
    };
    PodFailurePolicy { rules: vec![disrupted, last] }
}

/// The finished Job with a time to live, unless it has that one already.
pub(super) fn with_ttl(found: &Job, ttl: Duration) -> Option<Job> {
    let mut spec = found.spec.clone()?;
    let ttl = i32::try_from(ttl.as_secs()).ok();
    if spec.ttl_seconds_after_finished == ttl {
        return None;
    }
    spec.ttl_seconds_after_finished = ttl;
    let ObjectMeta { name, namespace, labels, annotations, owner_references, .. } =
        found.metadata.clone();
    let metadata = ObjectMeta {
        name,
        namespace,
        labels,
        annotations,
        owner_references,
        ..ObjectMeta::default()
    };
    Some(Job { metadata, spec: Some(spec), status: None })
}

/// A Job that runs stays in the queue that let it go.
pub(super) fn keep_queue(rendered: &mut Job, found: &Job) {
    let queue = label(&found.metadata, QUEUE).map(str::to_owned);
    let labels = rendered.metadata.labels.get_or_insert_default();
    match queue {
        Some(queue) => labels.insert(QUEUE.to_owned(), queue),
        None => labels.remove(QUEUE),
    };
}

/// What the API server does not let change, and what a queue adds to the pod template, stays as it is.
pub(super) fn keep_what_is_fixed(mut rendered: Job, found: Option<&Job>) -> Job {
    let found = found.and_then(|job| job.spec.as_ref());
    if let (Some(spec), Some(found)) = (&mut rendered.spec, found) {
        spec.template = found.template.clone();
        spec.pod_failure_policy.clone_from(&found.pod_failure_policy);
    }
    rendered
}

/// Leaves out what pods are made from, which no decision needs but what a trainer was told: it is most of a
/// Job, and a cache holds two for each workspace. [`whole`] puts it back.
pub fn lean(job: &mut Job) {
    let Some(spec) = &mut job.spec else { return };
    spec.pod_failure_policy = None;
    let pod = std::mem::take(&mut spec.template).spec.unwrap_or_default();
    let told = pod.containers.into_iter().filter_map(|container| {
        let env = pod::told_only(container.env?);
        (!env.is_empty()).then(|| Container { env: Some(env), ..Container::default() })
    });
    let containers: Vec<Container> = told.collect();
    spec.template.spec =
        (!containers.is_empty()).then(|| PodSpec { containers, ..PodSpec::default() });
}

/// Whether a Job was made [`lean`], or rendered from one that was.
pub fn is_lean(job: &Job) -> bool {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.is_none_or(|pod| pod.containers.iter().all(|container| container.image.is_none()))
}

/// A Job to be applied, with what its pods are made from as the API server has it.
pub fn whole(job: Job, found: &Job) -> Job {
    keep_what_is_fixed(job, Some(found))
}
