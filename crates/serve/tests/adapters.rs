//! Adapters come from a real registry while the server runs.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "every test binary uses a part of the support")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use support::{Bench, send, start, until, weights};
use testkit::registry::Registry;

fn push(folder: &Path, image: &str, annotations: &[(&str, &str)]) -> String {
    if !weights(folder).exists() {
        // What is no adapter by its files is still an image.
        let root = oci::Folder { root: "data", path: folder };
        let made = oci::image_from_dirs(&[root], &BTreeMap::new()).unwrap();
        let pushed = oci::blocking::push(&made, &image.parse().unwrap(), &oci::Options::default());
        return pushed.unwrap().digest;
    }
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let made = oci::adapter_image(folder, &annotations).unwrap();
    oci::blocking::push(&made, &image.parse().unwrap(), &oci::Options::default()).unwrap().digest
}

fn states(address: SocketAddr) -> Value {
    send(address, "GET", "/anneal/adapters", "").json()["adapters"].clone()
}

fn ready(address: SocketAddr) -> bool {
    send(address, "GET", "/readyz", "").status == 200
}

/// What a model answers greedily: its text, and how likely each token was. Random bytes are mostly no
/// text, so that the text alone would not tell two adapters apart.
fn answer(address: SocketAddr, model: &str) -> String {
    let body = json!({
        "model": model, "prompt": "hello", "max_tokens": 12, "temperature": 0, "logprobs": 1,
    });
    let response = send(address, "POST", "/v1/completions", &body.to_string());
    assert_eq!(response.status, 200, "{}", response.body);
    let choice = &response.json()["choices"][0];
    let likely = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    let likely: Vec<String> =
        likely.iter().map(|value| format!("{:.3}", value.as_f64().unwrap())).collect();
    format!("{} {}", choice["text"], likely.join(" "))
}

#[test]
fn revisions_are_taken_up_replaced_and_withdrawn_while_the_server_runs() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let image = format!("{}/team/a:v1", registry.host());
    let first = push(&bench.adapter("one", 4, 1), &image, &[]);
    let address = start(bench.options());
    until("no adapter is declared", || ready(address), |ready| *ready);
    let base = answer(address, "tiny");

    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let served = |digest: &str| {
        let digest = json!(digest);
        let holds =
            move |states: &Value| states[0]["digest"] == digest && states[0]["state"] == "Serving";
        until("it is served", || states(address), holds);
    };
    served(&first);
    let one = answer(address, "a");
    assert_ne!(one, base);
    let models = send(address, "GET", "/v1/models", "").json();
    assert_eq!(models["data"][1]["id"], "a");
    assert_eq!(
        (&models["data"][1]["parent"], &models["data"][1]["root"]),
        (&json!("tiny"), &json!(first))
    );

    // The tag moves: the new revision takes the name over.
    let second = push(&bench.adapter("two", 8, 2), &image, &[]);
    served(&second);
    let two = answer(address, "a");
    assert!(two != one && two != base);
    assert_eq!(answer(address, "tiny"), base);

    // Rolling back is naming the older revision.
    let pinned = format!("{}/team/a@{first}", registry.host());
    bench.declare(&format!("- {{name: a, image: \"{pinned}\"}}\n"));
    served(&first);
    assert_eq!(answer(address, "a"), one);

    bench.declare("");
    until("it is withdrawn", || states(address), |states| states == &json!([]));
    let gone = send(address, "POST", "/v1/completions", r#"{"model": "a", "prompt": "x"}"#);
    assert_eq!(gone.status, 404);
}

#[test]
fn hostile_and_broken_artifacts_are_refused_and_the_old_one_goes_on() {
    let (mut bench, registry) = (Bench::new(), Registry::open().unwrap());
    let image = format!("{}/team/a:v1", registry.host());
    let good = bench.adapter("good", 4, 1);
    push(&good, &image, &[]);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let mut options = bench.options();
    let ours = format!("sha256:{}", "1".repeat(64));
    options.base_digest = Some(ours.clone());
    let address = start(options);
    until("it is ready", || ready(address), |ready| *ready);
    let before = answer(address, "a");
    for (name, told) in break_in_many_ways(&mut bench) {
        let other = format!("sha256:{}", "2".repeat(64));
        let base: &[(&str, &str)] = match name {
            "other base" => &[("anneal.dev/base-model-digest", &other)],
            _ => &[],
        };
        let digest = push(&bench.path(name), &image, base);
        let refused = |states: &Value| {
            states[0]["state"] == "Refused" && states[0]["wantedDigest"] == json!(digest)
        };
        let states = until(name, || states(address), refused);
        let reason = states[0]["reason"].as_str().unwrap();
        assert!(reason.contains(told), "{name}: {reason}");
        assert_eq!(answer(address, "a"), before, "{name}: what was served goes on");
    }
    assert!(ready(address), "a refused revision does not take the server down");
    let metrics = send(address, "GET", "/metrics", "").body;
    assert!(metrics.contains("anneal_adapter_refused_total{adapter=\"a\""), "{metrics}");
}

/// Folders of adapters that must not be served, and a part of the reason.
fn break_in_many_ways(bench: &mut Bench) -> Vec<(&'static str, &'static str)> {
    let edit = |bench: &Bench, name: &str, field: &str, value: Value| {
        let path = bench.adapter(name, 4, 3).join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[field] = value;
        std::fs::write(path, config.to_string()).unwrap();
    };
    bench.adapter("other base", 4, 4);
    edit(bench, "wrong shapes", "r", json!(8));
    edit(bench, "rank", "r", json!(1000));
    edit(bench, "dora", "use_dora", json!(true));
    edit(bench, "whole modules", "modules_to_save", json!(["lm_head"]));
    edit(bench, "no such layer", "target_modules", json!(["wq"]));
    let truncated = weights(&bench.adapter("truncated", 4, 5));
    let bytes = std::fs::read(&truncated).unwrap();
    std::fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    let huge = weights(&bench.adapter("huge header", 4, 6));
    let mut bytes = std::fs::read(&huge).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&huge, bytes).unwrap();
    let endless = weights(&bench.adapter("too long", 4, 7));
    let file = std::fs::OpenOptions::new().append(true).open(endless).unwrap();
    file.set_len(8 << 20).unwrap();
    let nan = weights(&bench.adapter("not a number", 4, 8));
    let mut bytes = std::fs::read(&nan).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&nan, bytes).unwrap();
    let pickle = weights(&bench.adapter("pickle", 4, 9));
    std::fs::rename(&pickle, pickle.with_file_name("adapter_model.bin")).unwrap();
    vec![
        ("pickle", "none is ever read"),
        ("other base", "it was trained on base model sha256:2222"),
        ("wrong shapes", "has shape"),
        ("rank", "its rank is 1000, and at most 64"),
        ("dora", "use_dora"),
        ("whole modules", "modules_to_save"),
        ("no such layer", "none of its target modules"),
        ("truncated", "cannot understand adapter file"),
        ("huge header", "cannot understand adapter file"),
        ("too long", "bytes, and"),
        ("not a number", "not finite"),
    ]
}

#[test]
fn a_lost_registry_changes_nothing_and_a_restart_takes_what_was_served_from_the_disk() {
    let (bench, mut registry) = (Bench::new(), Registry::open().unwrap());
    let image = format!("{}/team/a:v1", registry.host());
    let digest = push(&bench.adapter("one", 4, 1), &image, &[]);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let address = start(bench.options());
    until("it is ready", || ready(address), |ready| *ready);
    let before = answer(address, "a");
    registry.stop().unwrap();
    until("the registry is missed", || states(address), |s| s[0]["state"] == "Unreachable");
    assert_eq!(answer(address, "a"), before);
    assert!(ready(address));

    let again = start(bench.options());
    until("it is ready without the registry", || ready(again), |ready| *ready);
    assert_eq!(states(again)[0]["digest"], json!(digest));
    assert_eq!(answer(again, "a"), before);

    registry.start().unwrap();
    until("the registry is back", || states(again), |s| s[0]["state"] == "Serving");
}

#[test]
fn half_a_file_changes_nothing_and_is_told() {
    let bench = Bench::new();
    let folder = bench.adapter("one", 4, 1);
    bench.declare(&format!("- {{name: a, path: \"{}\"}}\n", folder.display()));
    let address = start(bench.options());
    until("it is ready", || ready(address), |ready| *ready);
    std::fs::write(bench.path("adapters.yaml"), "adapters:\n- {name: a, ima").unwrap();
    let fault = || send(address, "GET", "/anneal/adapters", "").json()["fault"].clone();
    until("the mistake is told", fault, Value::is_string);
    answer(address, "a");
    assert!(ready(address), "a mistake in a file takes no server down");
    bench.declare("");
    until("the mistake is gone", fault, Value::is_null);
}
