//! Results go to a real registry and come back from it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use testkit::registry::{Registry, needs_go};
use tests_local::{Project, of_kind};

#[test]
fn a_run_pushes_its_adapter_and_anyone_can_pull_it() {
    if !needs_go("a_run_pushes_its_adapter_and_anyone_can_pull_it") {
        return;
    }
    let registry = Registry::open().unwrap();
    let project = Project::new().unwrap();
    let image = format!("{}/team/tiny", registry.host());
    project
        .edit("  evaluation:", &format!("  output: {{image: \"{image}\"}}\n  evaluation:"))
        .unwrap();
    let events = project.train().unwrap();
    let published = of_kind(&events, "published")[0];
    let reference = published["reference"].as_str().unwrap();
    assert!(reference.starts_with(&format!("{image}:")), "{reference}");

    let pulled = project.run(&["pull", reference, "copy"]).unwrap();
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert!(pulled.stdout.contains(published["digest"].as_str().unwrap()), "{}", pulled.stdout);
    let read = |folder: &str| {
        std::fs::read(project.path().join(folder).join("adapter_model.safetensors")).unwrap()
    };
    assert_eq!(read("copy"), read(".anneal/tiny/adapter"));

    let target = format!("{image}:again");
    let pushed = project.run(&["push", ".anneal/tiny", &target, "-o", "json"]).unwrap();
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
}

#[test]
fn a_refused_push_is_told_before_training() {
    if !needs_go("a_refused_push_is_told_before_training") {
        return;
    }
    let registry = Registry::with_login("ann", "secret").unwrap();
    let project = Project::new().unwrap();
    let image = format!("{}/team/tiny", registry.host());
    project
        .edit("  evaluation:", &format!("  output: {{image: \"{image}\"}}\n  evaluation:"))
        .unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    assert!(!ran.stderr.contains("step 1/"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: no credential for"), "{}", ran.stderr);
}

#[test]
fn a_base_model_comes_from_an_image() {
    if !needs_go("a_base_model_comes_from_an_image") {
        return;
    }
    let registry = Registry::open().unwrap();
    let project = Project::new().unwrap();
    let reference = format!("{}/models/tiny:v1", registry.host());
    let lora = "lora:\n      rank: 4\n      dropout: 0.1";
    project.edit(lora, "full: {}").unwrap();
    project.train().unwrap();
    let pushed = project.run(&["push", ".anneal/tiny", &reference]).unwrap();
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let answer = |model: &str| {
        let ran =
            project.run(&["generate", "--model", model, "--prompt", "a", "--max-new-tokens", "3"]);
        let ran = ran.unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    assert_eq!(answer(&reference), answer(".anneal/tiny/model"));
}

#[test]
fn a_registry_that_is_down_is_told_before_training_and_a_result_is_pushed_when_it_is_back() {
    if !needs_go("a_registry_that_is_down_is_told_before_training") {
        return;
    }
    let mut registry = Registry::open().unwrap();
    let project = Project::new().unwrap();
    let image = format!("{}/team/tiny:v1", registry.host());
    let output = format!("  output: {{image: \"{image}\"}}\n  evaluation:");
    project.edit("  evaluation:", &output).unwrap();
    registry.stop().unwrap();
    let down = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(down.code, 13, "{}", down.stderr);
    assert!(down.stderr.contains(&format!("error: cannot reach {}", registry.host())));
    assert!(down.stderr.contains("hint: check the name and the network"), "{}", down.stderr);
    assert!(!down.stderr.contains("step 1/"), "{}", down.stderr);

    // It goes away while the run trains: what was trained stays, and the same command pushes it.
    registry.start().unwrap();
    let mut command = project.anneal(&["run", "-f", "tune.yaml", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"event\":\"step\"")));
    registry.stop().unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("\"event\":\"finished\"")), "{rest:?}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(13));

    registry.start().unwrap();
    let again = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("this run was complete already"), "{}", again.stderr);
    assert!(again.stdout.contains(&image), "{}", again.stdout);
}
