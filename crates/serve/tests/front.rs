//! A server in front of vLLM: adapters from a real registry, requests passed on. vLLM's part is played by
//! `support::vllm`.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "every test binary uses a part of the support")]

mod support;
#[path = "support/vllm.rs"]
mod vllm;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use serve::adapters::AdapterOptions;
use serve::front::{FrontOptions, FrontStarted};
use serve::http::HttpOptions;
use support::{Bench, Response, send, send_as, until, weights};
use testkit::registry::Registry;
use vllm::Vllm;

/// The base model's name.
const BASE: &str = "tiny";

fn push(folder: &Path, image: &str) -> String {
    let made = oci::adapter_image(folder, &BTreeMap::new()).unwrap();
    oci::blocking::push(&made, &image.parse().unwrap(), &oci::Options::default()).unwrap().digest
}

fn options(bench: &Bench, vllm: SocketAddr) -> FrontOptions {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut adapters = AdapterOptions::new(bench.path("cache"));
    adapters.file = Some(bench.path("adapters.yaml").into());
    adapters.every = Duration::from_millis(50);
    FrontOptions {
        address: free,
        control: Some(free),
        vllm: format!("http://{vllm}"),
        model: None,
        name: BASE.to_owned(),
        base_digest: None,
        max_rank: 64,
        requests: 8,
        adapters,
        http: HttpOptions::default(),
        drain: Duration::from_secs(5),
    }
}

/// Starts it on a thread that ends with this process.
fn start(options: FrontOptions) -> FrontStarted {
    let (told, hear) = mpsc::channel();
    std::thread::spawn(move || {
        serve::front::run(options, |started| told.send(started).unwrap()).unwrap();
    });
    hear.recv_timeout(Duration::from_mins(1)).unwrap()
}

fn ask(address: SocketAddr, model: &str) -> Response {
    let body = json!({"model": model, "prompt": "hello", "top_p": 0.5}).to_string();
    send(address, "POST", "/v1/completions", &body)
}

/// The name in vLLM of the revision that answers for a model.
fn answers(address: SocketAddr, model: &str) -> String {
    let response = ask(address, model);
    assert_eq!(response.status, 200, "{}", response.body);
    let answer = response.json();
    assert_eq!(answer["prompt"], "hello");
    answer["model"].as_str().unwrap().to_owned()
}

fn id(name: &str, digest: &str) -> String {
    format!("{name}@{}", &digest["sha256:".len()..][..12])
}

fn states(address: SocketAddr) -> Value {
    send(address, "GET", "/anneal/adapters", "").json()["adapters"].clone()
}

fn served(address: SocketAddr, digest: &str) {
    let holds = |states: &Value| states[0]["digest"] == digest && states[0]["state"] == "Serving";
    until("it is served", || states(address), holds);
}

fn ready(address: SocketAddr) {
    until("it is ready", || send(address, "GET", "/readyz", "").status, |status| *status == 200);
}

#[test]
fn revisions_are_loaded_replaced_and_unloaded_while_clients_ask() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let vllm = Vllm::start(BASE, None);
    let image = format!("{}/team/a:v1", registry.host());
    let first = push(&bench.adapter("one", 4, 1), &image);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let FrontStarted { address, .. } = start(options(&bench, vllm.address));
    ready(address);
    assert_eq!(answers(address, "a"), id("a", &first));
    assert_eq!(answers(address, BASE), BASE);
    let folder = vllm.loaded()[&id("a", &first)].clone();
    assert!(Path::new(&folder).join("adapter_config.json").is_file(), "{folder}");

    let models = send(address, "GET", "/v1/models", "").json();
    let adapter = &models["data"][1];
    assert_eq!((&adapter["id"], &adapter["parent"]), (&json!("a"), &json!(BASE)));
    assert_eq!((&adapter["root"], &adapter["max_model_len"]), (&json!(first), &json!(2048)));
    assert_eq!(send(address, "GET", "/v1/models/a", "").json(), *adapter);

    // Every request is answered, by the one or by the other.
    let second = push(&bench.adapter("two", 8, 2), &image);
    let both = [id("a", &first), id("a", &second)];
    let asked = || answers(address, "a");
    let last = until("the second one answers", asked, |name| {
        assert!(both.contains(name), "{name}");
        *name == both[1]
    });
    assert_eq!(last, both[1]);
    let is_alone = |loaded: &BTreeMap<String, String>| loaded.keys().eq([&both[1]]);
    until("the first one is unloaded", || vllm.loaded(), is_alone);

    // Rolling back is naming the older revision.
    let pinned = format!("{}/team/a@{first}", registry.host());
    bench.declare(&format!("- {{name: a, image: \"{pinned}\"}}\n"));
    served(address, &first);
    assert_eq!(answers(address, "a"), both[0]);
    bench.declare("");
    until("it is unloaded", || vllm.loaded(), BTreeMap::is_empty);
    let gone = ask(address, "a");
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json()["error"]["code"], "model_not_found");
}

#[test]
fn what_vllm_has_lost_is_loaded_again() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let mut vllm = Vllm::start(BASE, None);
    let at = vllm.address;
    let image = format!("{}/team/a:v1", registry.host());
    let digest = push(&bench.adapter("one", 4, 1), &image);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let FrontStarted { address, control } = start(options(&bench, at));
    ready(address);

    vllm.forget();
    let back = until(
        "it is back",
        || ask(address, "a"),
        |answer| {
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            assert!(answer.status != 503 || answer.headers.contains_key("retry-after"));
            answer.status == 200
        },
    );
    assert_eq!(back.json()["model"], id("a", &digest));

    drop(vllm);
    let engine = || send(control.unwrap(), "GET", "/anneal/engine", "").status;
    until("it is missed", engine, |status| *status == 503);
    assert_eq!(ask(address, BASE).status, 503);
    let is_ready = || send(address, "GET", "/readyz", "").status;
    assert_eq!(is_ready(), 503);
    assert_eq!(send(address, "GET", "/healthz", "").status, 200);
    vllm = Vllm::start(BASE, Some(at));
    until("it is loaded again", || vllm.loaded().len(), |count| *count == 1);
    until("it is ready again", is_ready, |status| *status == 200);
    served(address, &digest);
    assert_eq!(answers(address, "a"), id("a", &digest));
}

#[test]
fn a_server_that_starts_again_finds_what_vllm_holds() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let vllm = Vllm::start(BASE, None);
    let image = format!("{}/team/a:v1", registry.host());
    let digest = push(&bench.adapter("one", 4, 1), &image);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    for _ in 0..2 {
        let FrontStarted { address, .. } = start(options(&bench, vllm.address));
        ready(address);
        assert_eq!(answers(address, "a"), id("a", &digest));
        assert_eq!(vllm.loaded().len(), 1);
    }
}

#[test]
fn what_is_broken_is_refused_by_us_or_by_vllm() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let vllm = Vllm::start(BASE, None);
    let image = format!("{}/team/a:v1", registry.host());
    let good = push(&bench.adapter("good", 4, 1), &image);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let FrontStarted { address, .. } = start(options(&bench, vllm.address));
    ready(address);
    let edit = |name: &str, field: &str, value: Value| {
        let path = bench.adapter(name, 4, 3).join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[field] = value;
        std::fs::write(path, config.to_string()).unwrap();
    };
    edit("rank", "r", json!(1000));
    edit("another rank", "r", json!(8));
    edit("whole modules", "modules_to_save", json!(["lm_head"]));
    edit("no such layer", "target_modules", json!(["wq"]));
    let nan = weights(&bench.adapter("not a number", 4, 8));
    let mut bytes = std::fs::read(&nan).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&nan, bytes).unwrap();
    for (file, from, to) in [("stray", ".lora_A.", ".lora_C."), ("half", "layers.0", "layers.7")] {
        let path = weights(&bench.adapter(file, 4, 9));
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        let changed = [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
        std::fs::write(path, changed).unwrap();
    }
    for (name, told) in [
        ("rank", "its rank is 1000, and at most 64"),
        ("another rank", "has shape"),
        ("whole modules", "modules_to_save"),
        ("no such layer", "vLLM does not take it: the base model has no module wq"),
        ("not a number", "not finite"),
        ("stray", "is no matrix of a LoRA adapter"),
        ("half", "is missing"),
    ] {
        let digest = push(&bench.path(name), &image);
        let refused = |states: &Value| {
            states[0]["state"] == "Refused" && states[0]["wantedDigest"] == json!(digest)
        };
        let states = until(name, || states(address), refused);
        let reason = states[0]["reason"].as_str().unwrap();
        assert!(reason.contains(told), "{name}: {reason}");
        assert_eq!(answers(address, "a"), id("a", &good), "{name}: what was served goes on");
    }
}

#[test]
fn vllm_itself_is_out_of_reach() {
    let (bench, vllm) = (Bench::new(), Vllm::start(BASE, None));
    let mut options = options(&bench, vllm.address);
    options.http.keys = [oci::sha256(b"secret")].into();
    options.http.body_bytes = 1000;
    let FrontStarted { address, .. } = start(options);
    ready(address);
    let key = "authorization: Bearer secret\r\n";
    let body = json!({"lora_name": "x", "lora_path": "/etc"}).to_string();
    for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/anneal/engine"] {
        assert_eq!(send_as(address, "POST", path, &body, key).status, 404, "{path}");
    }
    let wanted = json!({"model": BASE, "prompt": "x"}).to_string();
    let long = json!({"model": BASE, "prompt": "x".repeat(2000)}).to_string();
    for (body, headers, status) in [
        (wanted.as_str(), "", 401),
        (&wanted, key, 200),
        (&long, key, 413),
        ("{", key, 400),
        ("{}", key, 400),
    ] {
        let answer = send_as(address, "POST", "/v1/completions", body, headers);
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let metrics = send(address, "GET", "/metrics", "").body;
    for series in ["vllm:num_requests_waiting", "anneal_http_requests_total"] {
        assert!(metrics.contains(series), "{metrics}");
    }
}

#[test]
fn a_stream_comes_as_it_is_made_and_its_end_makes_room() {
    let (bench, vllm) = (Bench::new(), Vllm::start(BASE, None));
    let mut options = options(&bench, vllm.address);
    options.requests = 1;
    let FrontStarted { address, .. } = start(options);
    ready(address);
    let stream = || {
        let body = json!({"model": BASE, "prompt": "x", "stream": true}).to_string();
        let mut connection = TcpStream::connect(address).unwrap();
        let length = body.len();
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n");
        write!(connection, "{head}\r\n{body}").unwrap();
        let mut lines = BufReader::new(connection).lines();
        lines.find(|line| line.as_ref().unwrap().starts_with("data: ")).unwrap().unwrap();
        lines
    };
    let mut first = stream();
    let refused = ask(address, BASE);
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true));
    vllm.end_streams();
    assert!(first.any(|line| line.unwrap() == "data: [DONE]"));
    drop(first);
    let free = || ask(address, BASE).status;
    until("there is room", free, |status| *status == 200);

    // Whoever hangs up makes room too.
    drop(stream());
    until("there is room again", free, |status| *status == 200);
}

/// vLLM takes what does not fit, so that the base model's own configuration decides.
#[test]
fn shapes_are_held_against_the_base_model() {
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let vllm = Vllm::start(BASE, None);
    let image = format!("{}/team/a:v1", registry.host());
    let good = push(&bench.adapter("good", 4, 1), &image);
    bench.declare(&format!("- {{name: a, image: \"{image}\"}}\n"));
    let options =
        FrontOptions { model: Some(bench.path("model")), ..options(&bench, vllm.address) };
    let FrontStarted { address, .. } = start(options);
    ready(address);
    served(address, &good);
    // A model of another width.
    let path = bench.adapter("other", 4, 2).join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["target_modules"] = json!(["q_proj", "k_proj"]);
    std::fs::write(path, config.to_string()).unwrap();
    let digest = push(&bench.path("other"), &image);
    let refused = |states: &Value| {
        states[0]["state"] == "Refused" && states[0]["wantedDigest"] == json!(digest)
    };
    let states = until("it is refused", || states(address), refused);
    let reason = states[0]["reason"].as_str().unwrap();
    assert!(reason.contains("belongs to no layer of this base model"), "{reason}");
    assert_eq!(answers(address, "a"), id("a", &good));
}
