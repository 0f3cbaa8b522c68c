//! How `anneal push` and `anneal pull` come by credentials and certificates, and what they say when
//! they cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use testkit::needs_go;
use testkit::registry::Registry;
use tests_local::{Project, Ran};

/// A project with a small file to push.
fn project() -> Project {
    let project = Project::new().unwrap();
    project.write("reviews.jsonl", "{}\n").unwrap();
    fs::create_dir(project.path().join("docker")).unwrap();
    project
}

fn push(project: &Project, registry: &Registry) -> Command {
    project.anneal(&["push", "reviews.jsonl", &format!("{}/data:v1", registry.host())])
}

/// Puts a credential helper that prints this on PATH.
fn with_helper(command: &mut Command, project: &Project, script: &str) {
    let folder = project.path().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let helper = folder.join("docker-credential-for-test");
    fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
}

#[test]
fn a_credential_helper_is_asked() {
    if !needs_go("a_credential_helper_is_asked") {
        return;
    }
    let (registry, project) = (Registry::with_login("ann", "s3cret-word").unwrap(), project());
    let right = r#"read host; echo "{\"ServerURL\":\"$host\",\"Username\":\"ann\",\"Secret\":\"s3cret-word\"}""#;
    let wrong = right.replace("s3cret", "wr0ng");
    let helpers = format!(r#"{{"credHelpers": {{"{}": "for-test"}}}}"#, registry.host());
    for config in [helpers.as_str(), r#"{"credsStore": "for-test"}"#] {
        project.write("docker/config.json", config).unwrap();
        let run = |script: &str| {
            let mut command = push(&project, &registry);
            with_helper(&mut command, &project, script);
            Ran::of(&mut command).unwrap()
        };
        assert_eq!(run(right).code, 0, "{}", run(right).stderr);
        let refused = run(&wrong);
        assert_eq!(refused.code, 11);
        assert!(refused.stderr.contains("hint: the credential in "), "{}", refused.stderr);
        assert!(!refused.stderr.contains("wr0ng"), "{}", refused.stderr);
        // A helper that knows nothing is the same as none; one that fails is not.
        let unknown = run("read host; echo credentials not found in native keychain; exit 1");
        assert!(unknown.stderr.contains("hint: no credential for"), "{}", unknown.stderr);
        let failed = run("read host; echo s3cret-word; echo the keychain is locked >&2; exit 1");
        assert_eq!(failed.code, 11);
        assert!(failed.stderr.contains("says: the keychain is locked"), "{}", failed.stderr);
        assert!(!failed.stderr.contains("s3cret"), "{}", failed.stderr);
    }
    let missing = Ran::of(&mut push(&project, &registry)).unwrap();
    assert_eq!(missing.code, 11);
    assert!(missing.stderr.contains("it is not on PATH or ended at once"), "{}", missing.stderr);
    project.write("docker/config.json", "[1").unwrap();
    let broken = Ran::of(&mut push(&project, &registry)).unwrap();
    assert!(broken.stderr.contains("config.json: line 1: not a JSON object"), "{}", broken.stderr);
}

#[test]
fn a_login_by_docker_is_used() {
    if !needs_go("a_login_by_docker_is_used") {
        return;
    }
    let (registry, project) = (Registry::with_login("ann", "word").unwrap(), project());
    // base64 of `ann:word`, as `docker login` writes it.
    let auth = r#"{"auth": "YW5uOndvcmQ="}"#;
    let config = format!(r#"{{"auths": {{"http://{}/v2/": {auth}}}}}"#, registry.host());
    project.write("docker/config.json", &config).unwrap();
    let pushed = Ran::of(&mut push(&project, &registry)).unwrap();
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let image = format!("{}/data:v1", registry.host());
    let pulled = project.run(&["pull", &image, "copy"]).unwrap();
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert_eq!(fs::read_to_string(project.path().join("copy/reviews.jsonl")).unwrap(), "{}\n");
}

#[test]
fn an_identity_token_of_a_login_is_exchanged_for_an_access_token() {
    if !needs_go("an_identity_token_of_a_login_is_exchanged_for_an_access_token") {
        return;
    }
    let (registry, project) = (Registry::with_tokens("ann", "s3cret-word").unwrap(), project());
    let run = |identity: &str| {
        // As `docker login` writes it: an entry with such a token has no password.
        let entry = serde_json::json!({"auth": "", "identitytoken": identity});
        let config = serde_json::json!({"auths": {registry.host(): entry}});
        project.write("docker/config.json", &config.to_string()).unwrap();
        Ran::of(&mut push(&project, &registry)).unwrap()
    };
    let wrong = run("identity of wr0ng-word");
    assert_eq!(wrong.code, 11, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("invalid refresh token"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("hint: the credential in "), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wr0ng"), "{}", wrong.stderr);
    let right = run(&testkit::registry::identity_of("s3cret-word"));
    assert_eq!(right.code, 0, "{}", right.stderr);
    let image = format!("{}/data:v1", registry.host());
    let pulled = project.run(&["pull", &image, "copy"]).unwrap();
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
}

#[test]
fn a_private_authority_is_named_in_three_ways() {
    if !needs_go("a_private_authority_is_named_in_three_ways") {
        return;
    }
    let (registry, project) = (Registry::with_tls().unwrap(), project());
    let untrusted = Ran::of(&mut push(&project, &registry)).unwrap();
    assert_eq!(untrusted.code, 11, "{}", untrusted.stderr);
    assert!(untrusted.stderr.starts_with("error: cannot trust 127.0.0.1"), "{}", untrusted.stderr);
    let reason = "its certificate is of an authority that is not known";
    assert!(untrusted.stderr.contains(reason), "{}", untrusted.stderr);
    assert!(untrusted.stderr.contains("--ca-file"), "{}", untrusted.stderr);
    let ca_file = registry.ca_file();
    let by_flag = |command: &mut Command| {
        command.arg("--ca-file").arg(&ca_file);
    };
    let by_variable = |command: &mut Command| {
        command.env("ANNEAL_CA_FILE", &ca_file);
    };
    let by_openssl = |command: &mut Command| {
        command.env("SSL_CERT_FILE", &ca_file);
    };
    let ways: [&dyn Fn(&mut Command); 3] = [&by_flag, &by_variable, &by_openssl];
    for way in ways {
        let mut command = push(&project, &registry);
        way(&mut command);
        let pushed = Ran::of(&mut command).unwrap();
        assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    }
}

#[test]
fn a_registry_that_is_down_is_told_and_tried_again() {
    if !needs_go("a_registry_that_is_down_is_told_and_tried_again") {
        return;
    }
    let (mut registry, project) = (Registry::open().unwrap(), project());
    registry.stop().unwrap();
    let ran = Ran::of(&mut push(&project, &registry)).unwrap();
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert!(ran.stderr.contains("attempt 2 of 6 in"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: check the name and the network"), "{}", ran.stderr);
}
