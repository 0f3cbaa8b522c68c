//! A pod that is lost with its folder loses no more than what its last checkpoint in the registry lacks.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;
use testkit::needs_go;
use testkit::registry::Registry;
use tests_local::pod::{Ended, Pod};
use tests_local::{Project, WORKSPACE, of_kind};

/// Long enough for some checkpoints, and to be ended in the midst of it.
const STEPS: u64 = 1000;

/// A project whose adapter goes to the registry, with a checkpoint a second.
fn project(registry: &Registry) -> Project {
    let project = Project::new().unwrap();
    let output = format!("output: {{image: \"{}/team/tiny:v1\"}}\n  evaluation:", registry.host());
    let workspace = WORKSPACE
        .replace("evaluation:", &output)
        .replace("maxSteps: 12", &format!("maxSteps: {STEPS}"))
        .replace("everySteps: 6", "everySteps: 500")
        .replace("everySteps: 2", "everySteps: 0\n    every: 1s");
    project.write("tune.yaml", &workspace).unwrap();
    project
}

fn end(pod: Pod<'_>, code: i32) -> Ended {
    let ended = pod.end().unwrap();
    assert_eq!(ended.code, Some(code), "{}", ended.log);
    ended
}

/// What a run that nothing happens to ends with: the adapter's digest, and the losses.
static WHOLE: LazyLock<(Value, Vec<Value>)> = LazyLock::new(|| {
    let registry = Registry::open().unwrap();
    let project = project(&registry);
    let ended = end(Pod::start(&project, "train", &[]).unwrap(), 0);
    let losses = losses(&ended.events());
    assert_eq!(losses.len() as u64, STEPS);
    (ended.message["adapter"]["digest"].clone(), losses)
});

fn losses(events: &[Value]) -> Vec<Value> {
    of_kind(events, "step").iter().map(|step| step["loss"].clone()).collect()
}

/// Tags of checkpoints in the registry.
fn tags(registry: &Registry) -> Vec<PathBuf> {
    let tags = "docker/registry/v2/repositories/team/tiny/_manifests/tags";
    let entries = std::fs::read_dir(registry.storage().join(tags)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| is_checkpoint(path)).collect()
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().ends_with("-checkpoint")
}

fn lose_the_folder(project: &Project) {
    std::fs::remove_dir_all(project.path().join("work")).unwrap();
}

#[test]
fn a_killed_pod_goes_on_from_the_registry() {
    if !needs_go("a_killed_pod_goes_on_from_the_registry") {
        return;
    }
    let registry = Registry::open().unwrap();
    let (digest, expected) = &*WHOLE;

    let project = project(&registry);
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    let pushed = pod.wait_for(|fields| fields["message"] == "checkpoint pushed").unwrap();
    let step = pushed["step"].as_u64().unwrap();
    let status: Value = serde_json::from_str(&pod.get("/status").unwrap().1).unwrap();
    assert_eq!(status["checkpoint"]["step"], step, "{status}");
    pod.signal("KILL").unwrap();
    assert_eq!(pod.end().unwrap().code, None);
    assert_eq!(tags(&registry).len(), 1);

    lose_the_folder(&project);
    let ended = end(Pod::start(&project, "train", &[]).unwrap(), 0);
    let events = ended.events();
    let resumed = of_kind(&events, "resumed")[0]["step"].as_u64().unwrap();
    assert!(resumed >= step && resumed < STEPS, "{resumed} after {step}");
    assert_eq!(losses(&events), expected[resumed as usize..]);
    assert_eq!(ended.message["adapter"]["digest"], *digest);
    assert_eq!(tags(&registry), Vec::<PathBuf>::new(), "the checkpoint is of no more use");
}

#[test]
fn a_stopped_pod_pushes_its_checkpoint_before_it_ends() {
    if !needs_go("a_stopped_pod_pushes_its_checkpoint_before_it_ends") {
        return;
    }
    let registry = Registry::open().unwrap();
    let (digest, expected) = &*WHOLE;

    let project = project(&registry);
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    pod.wait_for_event(|event| event["event"] == "step" && event["step"] == 20).unwrap();
    pod.signal("TERM").unwrap();
    let ended = end(pod, 14);
    let stopped = of_kind(&ended.events(), "stopped")[0]["step"].as_u64().unwrap();
    assert_eq!(ended.message["checkpoint"]["step"], stopped, "{}", ended.message);

    lose_the_folder(&project);
    let ended = end(Pod::start(&project, "train", &[]).unwrap(), 0);
    let events = ended.events();
    assert_eq!(of_kind(&events, "resumed")[0]["step"], stopped);
    assert_eq!(losses(&events), expected[stopped as usize..]);
    assert_eq!(ended.message["adapter"]["digest"], *digest);
}

#[test]
fn a_checkpoint_of_no_use_is_told_and_the_run_begins_anew() {
    if !needs_go("a_checkpoint_of_no_use_is_told_and_the_run_begins_anew") {
        return;
    }
    let registry = Registry::open().unwrap();
    let (digest, _) = &*WHOLE;

    let project = project(&registry);
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    pod.wait_for_event(|event| event["event"] == "step" && event["step"] == 20).unwrap();
    pod.signal("TERM").unwrap();
    let ended = end(pod, 14);
    let checkpoint = ended.message["checkpoint"]["digest"].as_str().unwrap();
    damage(&registry, checkpoint);

    lose_the_folder(&project);
    let ended = end(Pod::start(&project, "train", &[]).unwrap(), 0);
    let events = ended.events();
    let warning = of_kind(&events, "warning")[0]["message"].as_str().unwrap().to_owned();
    assert!(warning.contains("has the digest"), "{warning}");
    assert!(of_kind(&events, "resumed").is_empty());
    assert_eq!(ended.message["adapter"]["digest"], *digest);
}

#[test]
fn a_checkpoint_of_another_run_is_told_and_left_alone() {
    if !needs_go("a_checkpoint_of_another_run_is_told_and_left_alone") {
        return;
    }
    let registry = Registry::open().unwrap();
    let project = project(&registry);
    let stop_at_20 = |pod: &mut Pod<'_>| {
        pod.wait_for_event(|event| event["event"] == "step" && event["step"] == 20).unwrap();
        pod.signal("TERM").unwrap();
    };
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    stop_at_20(&mut pod);
    end(pod, 14);

    lose_the_folder(&project);
    // Not a part of the revision, which is in the tag.
    let workspace = std::fs::read_to_string(project.path().join("tune.yaml")).unwrap();
    project.write("tune.yaml", &workspace.replace("maxNewTokens: 4", "maxNewTokens: 5")).unwrap();
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    let warning = pod.wait_for_event(|event| event["event"] == "warning").unwrap();
    let text = warning["message"].as_str().unwrap();
    assert!(text.ends_with("it belongs to a run with another specification"), "{text}");
    stop_at_20(&mut pod);
    end(pod, 14);
}

/// Changes a byte in the checkpoint's layer.
fn damage(registry: &Registry, digest: &str) {
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(registry.blob(digest)).unwrap()).unwrap();
    let layer = registry.blob(manifest["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(layer, bytes).unwrap();
}

#[test]
fn training_goes_on_while_the_registry_is_down() {
    if !needs_go("training_goes_on_while_the_registry_is_down") {
        return;
    }
    let mut registry = Registry::open().unwrap();
    let project = project(&registry);
    let mut pod = Pod::start(&project, "train", &[]).unwrap();
    pod.wait_for_event(|event| event["event"] == "step" && event["step"] == 20).unwrap();
    registry.stop().unwrap();
    pod.wait_for_event(|event| event["event"] == "finished").unwrap();
    registry.start().unwrap();
    let ended = end(pod, 0);
    assert_eq!(losses(&ended.events()).len() as u64, STEPS);
}
