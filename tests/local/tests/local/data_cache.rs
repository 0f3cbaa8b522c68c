//! Data are read and tokenised once for all commands.

use std::fs;

use tests_local::{Project, examples, of_kind};

const LINE: &str = "tokens: from the cache";

/// Whether a command that succeeds found the tokens of an earlier one.
fn from_cache(project: &Project, arguments: &[&str]) -> bool {
    let ran = project.run(arguments).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr.contains(LINE)
}

#[test]
fn what_validate_has_read_plan_and_run_find_and_a_changed_file_is_read_again() {
    let project = Project::new().unwrap();
    assert!(!from_cache(&project, &["validate", "-f", "tune.yaml"]));
    assert!(from_cache(&project, &["validate", "-f", "tune.yaml"]));
    assert!(from_cache(&project, &["plan", "-f", "tune.yaml"]));
    assert!(from_cache(&project, &["run", "-f", "tune.yaml"]));
    project.write("train.jsonl", &examples(100..132)).unwrap();
    assert!(!from_cache(&project, &["plan", "-f", "tune.yaml"]));
    project.edit("labels: [red, blue]", "labels: [red, blue, green]").unwrap();
    assert!(!from_cache(&project, &["plan", "-f", "tune.yaml"]));
    assert!(from_cache(&project, &["plan", "-f", "tune.yaml"]));
}

#[test]
fn a_run_on_kept_tokens_has_the_losses_of_one_that_read_the_data() {
    let losses = |project: &Project| {
        let events = project.train().unwrap();
        of_kind(&events, "step").iter().map(|step| step["loss"].to_string()).collect::<Vec<_>>()
    };
    let (fresh, kept) = (Project::new().unwrap(), Project::new().unwrap());
    assert!(!from_cache(&kept, &["validate", "-f", "tune.yaml"]));
    let expected = losses(&fresh);
    assert_eq!(losses(&kept), expected);
    // Damaged tokens are made anew, and the run is the same again.
    fs::remove_dir_all(kept.path().join(".anneal")).unwrap();
    for entry in fs::read_dir(kept.path().join("cache/tokens")).unwrap() {
        fs::write(entry.unwrap().path(), "no tokens").unwrap();
    }
    assert_eq!(losses(&kept), expected);
    assert!(from_cache(&kept, &["plan", "-f", "tune.yaml"]));
}
