//! Why a pod that should run does not: the words of scheduler, kubelet and quota, and what to do.

use api::condition::Reason;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::end::End;
use crate::observed::Observed;
use crate::seen::{self, Seen};

/// How long images may fail to be pulled: a registry that is being restarted comes back in less.
const PULL_PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// How long a Job may have no pod before it is asked why: most pods come at once, and asking costs a request.
const POD_PATIENCE: SignedDuration = SignedDuration::from_secs(3);

/// What holds a pod up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) hint: String,
    /// It has lasted longer than it may.
    pub(crate) is_final: bool,
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        let Trouble { reason, message, hint, is_final: _ } = trouble;
        Self::last(reason, message, hint)
    }
}

/// What holds up the pod of an active Job; `None` while it comes as it should.
pub(crate) fn of(job: &Job, seen: &Seen<'_>, observed: &Observed) -> Option<Trouble> {
    let Some(pod) = seen.live_pod(job) else {
        let message = observed.refusal.clone()?;
        let hint =
            "raise the quota, or change the workspace's compute; the job tries again".to_owned();
        return Some(Trouble { reason: Reason::PodRefused, message, hint, is_final: false });
    };
    unschedulable(pod).or_else(|| not_starting(pod, observed.now.0))
}

/// Time until an active Job without a pod is to be asked why it has none; `None` while there is nothing to
/// ask.
pub(crate) fn until_asked(job: &Job, seen: &Seen<'_>, now: Timestamp) -> Option<SignedDuration> {
    let last = seen.pods(job).pop();
    if last.is_some_and(|pod| !matches!(seen::phase(pod), "Failed")) {
        return None;
    }
    let ended = last.and_then(|pod| seen::terminated(pod)?.finished_at.clone());
    let since = ended.or_else(|| job.status.as_ref()?.start_time.clone())?;
    // Clocks differ: nobody waits longer than this.
    let left = (since.0 + POD_PATIENCE).duration_since(now).min(POD_PATIENCE);
    Some(left.max(SignedDuration::ZERO))
}

fn unschedulable(pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    (scheduled.status == "False").then(|| Trouble {
        reason: Reason::Unschedulable,
        message: scheduled.message.clone().unwrap_or_else(|| "no node takes the pod".to_owned()),
        hint: "add a node, or change compute.gpus, memory, nodeSelector or tolerations".to_owned(),
        is_final: false,
    })
}

fn not_starting(pod: &Pod, now: Timestamp) -> Option<Trouble> {
    let waiting: &ContainerStateWaiting = seen::container(pod)?.waiting.as_ref()?;
    let why = waiting.reason.as_deref()?;
    if matches!(why, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let detail = waiting.message.as_deref().unwrap_or("no message");
    if !why.contains("Image") && !why.contains("Pull") {
        let message = format!("{why}: {detail}");
        let hint = "see the pod's events".to_owned();
        return Some(Trouble {
            reason: Reason::ContainerNotStarting,
            message,
            hint,
            is_final: false,
        });
    }
    let start = pod.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    Some(Trouble {
        reason: Reason::ImagePullFailed,
        message: format!("cannot pull an image: {}", of_the_registry(detail)),
        hint: "check the references in baseModel and data, and their pull secrets".to_owned(),
        is_final: now.duration_since(start) > PULL_PATIENCE,
    })
}

/// What the registry said, without the kubelet's own words: they change from one try to the next, and a
/// status that says the same is the same.
pub(crate) fn of_the_registry(detail: &str) -> &str {
    let said = detail.rsplit_once("ErrImagePull: ").map_or(detail, |(_, said)| said);
    said.rsplit_once(" desc = ").map_or(said, |(_, said)| said)
}
