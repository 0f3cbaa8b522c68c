//! What is counted of a run, over the looks at it.

#![expect(clippy::unwrap_used, reason = "tests")]

use api::FineTuneWorkspace;
use api::workspace::{CapacityStatus, GpuSeconds};
use k8s_openapi::jiff::Timestamp;
use plan::{Observed, Plan, plan};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde_json::{Value, json};

use super::Runs;

const START: &str = "2026-11-25T10:00:00Z";

fn workspace() -> FineTuneWorkspace {
    serde_json::from_value(json!({
        "apiVersion": "anneal.dev/v1alpha1", "kind": "FineTuneWorkspace",
        "metadata": {"name": "reviews", "namespace": "team", "uid": "w", "generation": 1},
        "spec": {
            "baseModel": {"image": "registry.example.com/models/a:1"},
            "data": {"train": {"image": "registry.example.com/data/a:1"}},
            "output": {"image": "registry.example.com/team/a"},
            "compute": {"gpus": 2},
        },
    }))
    .unwrap()
}

/// A training Job that waited a minute, with its pod.
fn seen(at: &str, pod_status: &Value) -> Observed {
    let revision = plan::workspace_revision(&workspace().spec);
    let labels = json!({"anneal.dev/workspace": "reviews", "anneal.dev/revision": revision,
        "anneal.dev/role": "train", "app.kubernetes.io/managed-by": "anneal"});
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j"}]);
    serde_json::from_value(json!({
        "now": at,
        "settings": {"trainerImage": "trainer"},
        "jobs": [{
            "metadata": {"name": "reviews-t0", "namespace": "team", "uid": "j", "labels": labels,
                "creationTimestamp": "2026-11-25T09:58:00Z"},
            "spec": {"template": {}},
            "status": {"startTime": "2026-11-25T09:59:00Z", "active": 1},
        }],
        "pods": [{
            "metadata": {"name": "reviews-t0-x", "namespace": "team", "uid": "p", "labels": labels,
                "ownerReferences": owner},
            "spec": {"containers": [{"name": "trainer",
                "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "1Gi"}}}]},
            "status": pod_status,
        }],
    }))
    .unwrap()
}

fn pod(phase: &str, state: &Value) -> Value {
    json!({
        "phase": phase,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": START}],
        "containerStatuses": [{"name": "trainer", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "state": state}],
    })
}

fn running() -> Value {
    pod("Running", &json!({"running": {"startedAt": "2026-11-25T10:00:20Z"}}))
}

fn failed() -> Value {
    let state = json!({"terminated": {"exitCode": 10, "startedAt": "2026-11-25T10:00:20Z",
        "finishedAt": "2026-11-25T10:01:00Z", "message": "{\"pushSeconds\": 7.5}"}});
    pod("Failed", &state)
}

/// A look at a run, as a pass has it.
fn look(runs: &Runs, at: &str, pod_status: &Value) {
    let (workspace, seen) = (workspace(), seen(at, pod_status));
    let decided: Plan = plan(&workspace, &seen);
    runs.saw(&workspace, &seen, &decided);
}

fn text(registry: &Registry) -> String {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn has(registry: &Registry, lines: &[&str]) {
    let text = text(registry);
    for line in lines {
        assert!(text.lines().any(|one| one == *line), "no `{line}` in\n{text}");
    }
}

/// Each wait, pull, run and push is counted once, however often it is seen.
#[test]
fn what_happens_is_counted_once() {
    let registry = Registry::new();
    let runs = Runs::new(&registry).unwrap();
    look(&runs, START, &json!({"phase": "Pending"}));
    // The admission lies before the first look: another process counted it.
    has(&registry, &["anneal_queue_seconds_count 0"]);
    look(&runs, "2026-11-25T10:00:30Z", &running());
    look(&runs, "2026-11-25T10:00:40Z", &running());
    has(
        &registry,
        &[
            "anneal_pull_seconds_count{role=\"train\"} 1",
            "anneal_pull_seconds_sum{role=\"train\"} 20",
            "anneal_gpu_seconds_total{namespace=\"team\"} 80",
        ],
    );
    look(&runs, "2026-11-25T10:01:05Z", &failed());
    look(&runs, "2026-11-25T10:03:00Z", &failed());
    has(
        &registry,
        &[
            "anneal_pull_seconds_count{role=\"train\"} 1",
            "anneal_train_seconds_sum{outcome=\"failed\"} 40",
            "anneal_train_seconds_count{outcome=\"failed\"} 1",
            "anneal_push_seconds_sum 7.5",
            // From the assignment to the end, and not to the look.
            "anneal_gpu_seconds_total{namespace=\"team\"} 120",
        ],
    );
    runs.look("2026-11-25T11:00:00Z".parse().unwrap());
    has(&registry, &["anneal_gpu_seconds_total{namespace=\"team\"} 120"]);
}

/// GPUs are counted between passes as well, and a pod that vanished holds none.
#[test]
fn gpus_are_counted_while_they_are_held() {
    let registry = Registry::new();
    let runs = Runs::new(&registry).unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    // At the first sight the pod has run for a while: that was another process's.
    look(&runs, "2026-11-25T10:00:30Z", &running());
    runs.look(at("2026-11-25T10:00:35Z"));
    has(&registry, &["anneal_gpu_seconds_total{namespace=\"team\"} 10"]);
    let (workspace, mut seen) = (workspace(), seen("2026-11-25T10:00:40Z", &running()));
    seen.pods.clear();
    runs.saw(&workspace, &seen, &plan(&workspace, &seen));
    runs.look(at("2026-11-25T10:09:00Z"));
    has(&registry, &["anneal_gpu_seconds_total{namespace=\"team\"} 20"]);

    runs.keep([workspace].iter());
    assert!(text(&registry).contains("namespace=\"team\""));
    runs.keep([].iter());
    assert!(!text(&registry).contains("namespace=\"team\""), "{}", text(&registry));
}

/// A run's end is counted by the process that decides it, with its reason.
#[test]
fn ends_are_counted_with_their_reason() {
    let registry = Registry::new();
    let runs = Runs::new(&registry).unwrap();
    look(&runs, START, &running());
    let (mut workspace, mut seen) = (workspace(), seen("2026-11-25T10:01:05Z", &failed()));
    let condition = json!([{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]);
    seen.jobs[0].status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
    let decided = plan(&workspace, &seen);
    runs.saw(&workspace, &seen, &decided);
    // The watch shows our own status only later.
    runs.saw(&workspace, &seen, &decided);
    let line = "anneal_runs_total{phase=\"Failed\",reason=\"InvalidData\"} 1";
    has(&registry, &[line]);

    // Another process finds it ended.
    let registry = Registry::new();
    let runs = Runs::new(&registry).unwrap();
    workspace.status = Some(decided.status.clone());
    runs.saw(&workspace, &seen, &decided);
    has(&registry, &["anneal_runs_total{phase=\"Failed\",reason=\"InvalidData\"} 0"]);
}

/// GPU-seconds of nodes are those of the status, counted once and as far as this process saw them grow.
#[test]
fn gpu_seconds_of_nodes_are_counted_once() {
    let registry = Registry::new();
    let runs = Runs::new(&registry).unwrap();
    let (mut workspace, seen) = (workspace(), seen(START, &running()));
    let mut decided = plan(&workspace, &seen);
    let mut told = |workspace: &FineTuneWorkspace, asked: u64, revision: &str| {
        decided.status.revision = Some(revision.to_owned());
        let gpu_seconds = GpuSeconds { asked, held: 2 * asked, used: 0 };
        decided.status.capacity = Some(CapacityStatus { gpu_seconds, ..CapacityStatus::default() });
        runs.saw(workspace, &seen, &decided);
        decided.status.clone()
    };
    // What the status told before this process began was another's to count.
    workspace.status = Some(told(&workspace, 0, "a"));
    let has_counted = |asked: u64| {
        let name = "anneal_node_gpu_seconds_total";
        let line = |what: &str, value: u64| {
            format!("{name}{{namespace=\"team\",what=\"{what}\"}} {value}")
        };
        has(&registry, &[&line("asked", asked), &line("held", 2 * asked)]);
    };
    told(&workspace, 10, "a");
    told(&workspace, 10, "a");
    has_counted(10);
    told(&workspace, 15, "a");
    // The next revision begins anew.
    told(&workspace, 4, "b");
    has_counted(19);
    runs.keep([].iter());
    assert!(!text(&registry).contains("namespace=\"team\""), "{}", text(&registry));
}
