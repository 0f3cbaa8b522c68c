//! What a run would do.

use insta::{assert_snapshot, with_settings};
use tests_local::Project;

#[test]
fn a_plan_shows_choices_with_reasons_data_memory_and_time() {
    let project = Project::new().unwrap();
    let ran = project.run(&["plan", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // What depends on this machine is not part of the snapshot.
    with_settings!({filters => vec![
        (r"[\d.,]+ (GB|MB|kB|bytes)", "[bytes]"),
        (r"(?m)(time .*?)[\d.]+ (s|min).*$", "$1[time]"),
        (r"\d+ threads", "[threads]"),
    ]}, {
        assert_snapshot!(ran.stdout);
    });
    assert!(!project.path().join(".anneal").exists(), "a plan writes nothing");
}

#[test]
fn a_plan_as_json_holds_the_run_specification() {
    let project = Project::new().unwrap();
    let ran = project.run(&["plan", "-f", "tune.yaml", "-o", "json"]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["runSpec"]["training"]["steps"], 12);
    assert_eq!(value["data"]["train"]["examples"], 32);
    assert!(value["estimate"].is_object());
    assert!(value["gpu"]["chosen"]["product"].is_string());
}
