//! Reading a workspace's status.

use api::FineTuneWorkspace;
use api::condition::READY;
use api::workspace::{FineTuneWorkspaceStatus, Phase};
use kube::runtime::wait::Condition;
use tests_cluster::{Place, until};

/// The workspace's status once it is in a phase with a reason.
pub(crate) async fn reached(place: &Place, phase: Phase, reason: &str) -> FineTuneWorkspaceStatus {
    let found = until(&place.workspaces, "reviews", is_in(phase, reason)).await.unwrap();
    found.unwrap().status.unwrap()
}

fn is_in(phase: Phase, reason: &str) -> impl Condition<FineTuneWorkspace> {
    let reason = reason.to_owned();
    move |workspace: Option<&FineTuneWorkspace>| {
        let status = workspace.and_then(|workspace| workspace.status.as_ref());
        status.is_some_and(|status| {
            status.phase == Some(phase) && condition(status, READY).1 == reason
        })
    }
}

/// Status, reason and message of a condition.
pub(crate) fn condition(status: &FineTuneWorkspaceStatus, type_: &str) -> (String, String, String) {
    status
        .conditions
        .iter()
        .find(|one| one.type_ == type_)
        .map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
        .unwrap_or_default()
}
