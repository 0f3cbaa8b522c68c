//! A controller tells a running server what to hold, at an address of its own.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "every test binary uses a part of the support")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use serve::ServeOptions;
use support::{Bench, send, start_controlled, until};
use testkit::registry::Registry;

const PATH: &str = "/anneal/adapters";

fn push(folder: &Path, image: &str) -> String {
    let made = oci::adapter_image(folder, &BTreeMap::new()).unwrap();
    oci::blocking::push(&made, &image.parse().unwrap(), &oci::Options::default()).unwrap().digest
}

/// A server that looks at tags so seldom that only what it is told changes anything.
fn options(bench: &Bench) -> ServeOptions {
    let mut options = bench.options();
    options.control = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.adapters.every = Duration::from_hours(1);
    options
}

fn told(control: SocketAddr, sequence: u64, rows: &Value) -> u16 {
    let body = json!({"sequence": sequence, "adapters": rows}).to_string();
    send(control, "PUT", PATH, &body).status
}

fn held(control: SocketAddr) -> Value {
    send(control, "GET", PATH, "").json()
}

fn serves(control: SocketAddr, name: &str, digest: &str) {
    let holds = |held: &Value| {
        let rows = held["adapters"].as_array().unwrap();
        rows.iter().any(|row| row["name"] == name && row["digest"] == digest)
    };
    until("it is served", || held(control), holds);
}

#[test]
fn the_newest_word_counts_and_is_taken_up_at_once() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let host = registry.host();
    let (address, control) = start_controlled(options(&bench));
    let is_ready = || send(address, "GET", "/readyz", "").status == 200;
    until("it is ready", is_ready, |ready| *ready);
    let first = push(&bench.adapter("one", 4, 1), &format!("{host}/team/a:v1"));
    let second = push(&bench.adapter("two", 4, 2), &format!("{host}/team/a:v2"));
    let row = |digest: &str| json!([{"name": "a", "image": format!("{host}/team/a@{digest}")}]);

    assert_eq!(told(control, 2, &row(&first)), 200);
    serves(control, "a", &first);
    assert_eq!(told(control, 1, &row(&second)), 200);
    assert_eq!(held(control)["sequence"], 2, "an older word counts for nothing");
    assert_eq!(told(control, 3, &row(&second)), 200);
    serves(control, "a", &second);

    // What cannot be had does not hold up what can, and takes nobody down.
    let mut rows = row(&first);
    let away = json!({"name": "b", "image": "127.0.0.1:1/team/b:v1"});
    rows.as_array_mut().unwrap().push(away);
    assert_eq!(told(control, 4, &rows), 200);
    serves(control, "a", &first);
    assert!(is_ready());
    assert_eq!(told(control, 5, &json!([])), 200);
    until("all are gone", || held(control), |held| held["adapters"] == json!([]));
}

#[test]
fn what_is_told_is_for_the_controller_alone_and_must_be_understood() {
    let bench = Bench::new();
    let mut options = options(&bench);
    options.http.keys = [oci::sha256(b"key")].into();
    let (address, control) = start_controlled(options);
    assert!([401, 405].contains(&send(address, "PUT", PATH, "{}").status));
    assert_eq!(send(address, "GET", PATH, "").status, 401);
    assert_eq!(send(control, "GET", PATH, "").status, 200);
    assert_eq!(told(control, 1, &json!([{"name": "tiny", "image": "a/b"}])), 400);
    assert_eq!(send(control, "PUT", PATH, "{").status, 400);
    assert_eq!(send(control, "GET", "/v1/models", "").status, 404);
}

#[test]
fn a_login_that_is_missing_is_told() {
    let bench = Bench::new();
    let (_, control) = start_controlled(options(&bench));
    let row = json!([{"name": "a", "image": "127.0.0.1:1/team/a:v1", "dockerConfig": "/nowhere"}]);
    assert_eq!(told(control, 1, &row), 200);
    let holds = |held: &Value| held["adapters"][0]["state"] == "Refused";
    let held = until("it is refused", || held(control), holds);
    let reason = held["adapters"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("its login is not there: /nowhere"), "{reason}");
}

/// A digest that is on the disk needs no registry.
#[test]
fn a_pinned_adapter_comes_from_the_disk_after_a_restart() {
    let (bench, mut registry) = (Bench::new(), Registry::open().unwrap());
    let image = format!("{}/team/a", registry.host());
    let digest = push(&bench.adapter("one", 4, 1), &format!("{image}:v1"));
    let row = json!([{"name": "a", "image": format!("{image}@{digest}")}]);
    let (_, control) = start_controlled(options(&bench));
    assert_eq!(told(control, 1, &row), 200);
    serves(control, "a", &digest);
    registry.stop().unwrap();
    let (_, again) = start_controlled(options(&bench));
    assert_eq!(told(again, 1, &row), 200);
    serves(again, "a", &digest);
    let held = held(again);
    assert_eq!(held["adapters"][0]["state"], "Serving", "{held}");
}
