//! What else has to be looked at before a plan can be made: most passes need none of it.

use std::collections::BTreeSet;

use api::workspace::AdapterStatus;
use api::{FineTuneWorkspace, valid, validate};

use crate::attempts;
use crate::end;
use crate::names::Run;
use crate::nodes;
use crate::observed::{Observed, SecretKind};
use crate::phase::report;
use crate::seen::{self, JobState, Seen};
use crate::{trouble, uses};

/// What [`crate::plan`] would like to know beside the workspace's own objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Secrets whose form matters now, and what each has to hold.
    pub secrets: Vec<(String, SecretKind)>,
    /// The adapter that the registry is to be asked for, and the secret to ask with.
    pub adapter: Option<(AdapterStatus, Option<String>)>,
    /// Address of the trainer that may tell its progress.
    pub trainer: Option<String>,
    /// A Job that runs and has had no pod for a while: its warnings tell why.
    pub refused: Option<String>,
    /// Pods whose trainer was killed, and of which the status does not say yet why: their events tell.
    pub killed: BTreeSet<String>,
    /// Nodes that the run used and may still hold.
    pub nodes: BTreeSet<String>,
    /// Whether any node of the cluster could take the pod.
    pub gpu_nodes: bool,
}

/// What to look at, from a first look that answers none of it.
pub fn questions(raw: &FineTuneWorkspace, first: &Observed) -> Questions {
    let Ok(workspace) = validate(raw) else { return Questions::default() };
    let run = Run::new(raw);
    let seen = Seen::new(&run, first);
    let mut questions = Questions {
        nodes: uses::nodes(&run, &seen),
        killed: killed(&run, &seen),
        ..Questions::default()
    };
    if seen.trainings.is_empty() {
        questions.secrets = secrets(&workspace.secrets);
    }
    let Some(job) = seen.last_job() else { return questions };
    match (seen::state(job), seen.live_pod(job)) {
        (JobState::Active, Some(pod)) if seen::phase(pod) == "Running" => {
            questions.trainer = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        }
        (JobState::Active, Some(_)) => {
            questions.gpu_nodes = nodes::waits(&workspace, &seen, first);
        }
        (JobState::Active, None) => {
            let is_overdue =
                trouble::until_asked(job, &seen, first.now.0).is_some_and(|left| left.is_zero());
            questions.refused = job.metadata.name.clone().filter(|_| is_overdue);
        }
        (JobState::Complete, _) => {
            let adapter = report(job, &seen).and_then(|report| report.adapter);
            questions.adapter = adapter.map(|adapter| (adapter, workspace.secrets.push.clone()));
        }
        (JobState::Suspended | JobState::Failed(_), _) => {}
    }
    questions
}

/// A pass that was cut off may have made the next Job, and not have told how the last attempt ended: pods of
/// every Job are asked about. Of the last one it is asked again, since it decides how the run goes on.
fn killed(run: &Run<'_>, seen: &Seen<'_>) -> BTreeSet<String> {
    let is_told = |name: &str| {
        let mut attempts = run.raw.status.iter().flat_map(|status| &status.attempts);
        attempts.any(|attempt| attempt.pod == name && attempts::has_ended(attempt))
    };
    let mut killed = BTreeSet::new();
    for job in &seen.trainings {
        let is_last = seen.last_job().is_some_and(|last| last.metadata.uid == job.metadata.uid);
        let decides = is_last && matches!(seen::state(job), JobState::Failed(_));
        let pods = seen.pods(job).into_iter().filter(|pod| end::is_killed(pod));
        let names =
            pods.filter(|pod| !seen.was_silent(pod)).filter_map(|pod| pod.metadata.name.clone());
        killed.extend(names.filter(|name| decides || !is_told(name)));
    }
    killed
}

fn secrets(named: &valid::Secrets) -> Vec<(String, SecretKind)> {
    let valid::Secrets { pull_model, pull_data, push, hub } = named;
    let docker = [pull_model, pull_data, push].map(|name| (name, SecretKind::Docker));
    let all = docker.into_iter().chain([(hub, SecretKind::HubToken)]);
    all.filter_map(|(name, kind)| Some((name.clone()?, kind))).collect()
}
