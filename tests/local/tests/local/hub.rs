//! Base models from a server that speaks the Hugging Face hub's API.

use std::collections::BTreeMap;
use std::fs;

use insta::assert_snapshot;
use testkit::hub::{COMMIT, Hub, Repository};
use tests_local::pod::Pod;
use tests_local::{Project, Ran};

const ID: &str = "team/tiny";

/// The project's model as a repository; the YAML names it.
fn repository(project: &Project) -> Repository {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(project.path().join("model")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(name, fs::read(&path).unwrap());
    }
    files.insert("README.md".to_owned(), b"not needed".to_vec());
    files.insert("consolidated.safetensors".to_owned(), b"a second copy".to_vec());
    project.edit("path: model", "huggingFace: {repo: team/tiny, revision: v1}").unwrap();
    Repository { id: ID.to_owned(), files, ..Repository::default() }
}

fn plan(project: &Project, hub: &Hub, token: Option<&str>) -> Ran {
    let mut command = project.anneal(&["plan", "-f", "tune.yaml", "-o", "json"]);
    command.env("HF_ENDPOINT", hub.endpoint());
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    Ran::of(&mut command).unwrap()
}

fn error(ran: &Ran) -> &str {
    ran.stderr.find("error:").map_or(ran.stderr.as_str(), |at| &ran.stderr[at..])
}

#[test]
fn a_repository_is_fetched_at_one_commit_and_only_once() {
    let project = Project::new().unwrap();
    let hub = Hub::start(repository(&project)).unwrap();
    let ran = plan(&project, &hub, None);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let base = &value["runSpec"]["baseModel"];
    assert_eq!(base["digest"], COMMIT);
    assert_eq!(base["reference"], format!("hf:{ID}@{COMMIT}"));
    let requests = hub.requests();
    assert!(requests.iter().all(|request| !request.contains("README")), "{requests:?}");
    assert!(requests.iter().all(|request| !request.contains("consolidated")), "{requests:?}");

    plan(&project, &hub, None);
    let asked_again: Vec<_> = hub.requests().split_off(requests.len());
    assert_eq!(asked_again, [format!("GET /api/models/{ID}/revision/v1")]);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let project = Project::new().unwrap();
    let repository = Repository { breaks: 2, ..repository(&project) };
    let hub = Hub::start(repository).unwrap();
    let ran = plan(&project, &hub, None);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let resumed = hub.requests().iter().filter(|request| is_resumed(request)).count();
    assert!(resumed > 0, "{:?}", hub.requests());
}

/// Whether a request asks for what comes after a byte that is not the first.
fn is_resumed(request: &str) -> bool {
    request.rsplit_once(' ').is_some_and(|(_, range)| range.ends_with('-') && range != "0-")
}

#[test]
fn a_token_is_sent_and_its_absence_is_told() {
    let project = Project::new().unwrap();
    let repository = Repository { token: Some("secret-1".to_owned()), ..repository(&project) };
    let hub = Hub::start(repository).unwrap();
    let refused = plan(&project, &hub, None);
    assert_eq!(refused.code, 11, "{}", refused.stderr);
    assert_snapshot!(error(&refused));
    let allowed = plan(&project, &hub, Some("secret-1"));
    assert_eq!(allowed.code, 0, "{}", allowed.stderr);
    assert!(!allowed.stderr.contains("secret-1"));
}

#[test]
fn an_unknown_repository_is_told() {
    let project = Project::new().unwrap();
    let repository = Repository { id: "team/other".to_owned(), ..repository(&project) };
    let hub = Hub::start(repository).unwrap();
    let ran = plan(&project, &hub, None);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert_snapshot!(error(&ran));
}

#[test]
fn a_server_that_does_not_answer_is_told() {
    let project = Project::new().unwrap();
    repository(&project);
    let mut command = project.anneal(&["plan", "-f", "tune.yaml"]);
    // Port 9 of this machine: nothing listens there.
    let ran = Ran::of(command.env("HF_ENDPOINT", "http://127.0.0.1:9")).unwrap();
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert!(error(&ran).contains("cannot fetch base model `team/tiny@v1`"), "{}", ran.stderr);
}

/// A pod in the cluster: the model is fetched into its own folder.
fn pod<'a>(project: &'a Project, hub: &Hub, role: &str, variables: &[(&str, &str)]) -> Pod<'a> {
    let mut command = Pod::command(project, role);
    command.env_remove("HF_HOME").env("HOME", "work").env("HF_ENDPOINT", hub.endpoint());
    Pod::spawn(project, command.envs(variables.iter().copied())).unwrap()
}

#[test]
fn a_pod_fetches_the_model_and_trains_on_the_commit_that_preflight_found() {
    let project = Project::new().unwrap();
    let repository = Repository { token: Some("secret-1".to_owned()), ..repository(&project) };
    let hub = Hub::start(repository).unwrap();
    fs::remove_dir_all(project.path().join("model")).unwrap();

    let refused = pod(&project, &hub, "preflight", &[]).end().unwrap();
    assert_eq!(refused.code, Some(11), "{}", refused.log);
    let hint = refused.message["hint"].as_str().unwrap();
    assert!(hint.contains("spec.baseModel.huggingFace.tokenSecret"), "{hint}");

    let token = ("HF_TOKEN", "secret-1");
    let looked = pod(&project, &hub, "preflight", &[token]).end().unwrap();
    assert_eq!(looked.code, Some(0), "{}", looked.log);
    assert_eq!(looked.message["resolved"]["baseModel"], format!("hf:{ID}@{COMMIT}"));

    // The pod's folder is another one, and the branch may have moved meanwhile.
    fs::remove_dir_all(project.path().join("work")).unwrap();
    let before = hub.requests().len();
    let pinned = ("ANNEAL_HUB_REVISION", COMMIT);
    let trained = pod(&project, &hub, "train", &[token, pinned]).end().unwrap();
    assert_eq!(trained.code, Some(0), "{}", trained.log);
    let asked = hub.requests().split_off(before);
    assert_eq!(asked[0], format!("GET /api/models/{ID}/revision/{COMMIT}"));
    assert!(asked.iter().all(|request| !request.contains("revision/v1")), "{asked:?}");
    for log in [&refused.log, &looked.log, &trained.log] {
        assert!(!log.contains("secret-1"));
    }
}
