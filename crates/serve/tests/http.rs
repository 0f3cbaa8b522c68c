//! What a server answers to requests that no good client sends, and what it lets go.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "every test binary uses a part of the support")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use serve::http::HttpOptions;
use support::{Bench, send, send_as, start, until};

fn error(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let response = send(address, method, path, body);
    assert!(response.headers.contains_key("x-request-id"));
    let error = &response.json()["error"];
    assert!(error["message"].is_string() && error["type"].is_string(), "{}", response.body);
    (response.status, error["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn errors_have_the_shape_of_openais() {
    let bench = Bench::new();
    let mut options = bench.options();
    options.http.body_bytes = 10_000;
    let address = start(options);
    let chat = "/v1/chat/completions";
    let told = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(error(address, "POST", chat, "{\"model\""), told(400, "invalid_json"));
    assert_eq!(error(address, "POST", chat, "{\"model\": 3}"), told(400, "invalid_json"));
    assert_eq!(error(address, "POST", chat, &"x".repeat(20_000)), told(413, "body_too_large"));
    assert_eq!(error(address, "GET", "/v2", ""), told(404, "unknown_url"));
    assert_eq!(error(address, "GET", chat, ""), told(405, "method_not_allowed"));
    let long = json!({"model": "tiny", "prompt": vec![1; 2050]}).to_string();
    assert_eq!(
        error(address, "POST", "/v1/completions", &long),
        told(400, "context_length_exceeded")
    );
    let beyond = json!({"model": "tiny", "prompt": [1, 259]}).to_string();
    assert_eq!(error(address, "POST", "/v1/completions", &beyond), told(400, "invalid_value"));
}

#[test]
fn keys_guard_models_and_not_probes() {
    let bench = Bench::new();
    let mut options = bench.options();
    let keys = [oci::sha256(b"secret")].into();
    options.http = HttpOptions { keys, ..HttpOptions::default() };
    let address = start(options);
    for (headers, status) in [
        ("", 401),
        ("authorization: Bearer other\r\n", 401),
        ("authorization: Bearer secret\r\n", 200),
    ] {
        let response = send_as(address, "GET", "/v1/models", "", headers);
        assert_eq!(response.status, status, "{headers}");
    }
    for path in ["/healthz", "/metrics"] {
        assert_eq!(send(address, "GET", path, "").status, 200, "{path}");
    }
}

#[test]
fn a_client_that_hangs_up_frees_its_place() {
    let bench = Bench::new();
    let mut options = bench.options();
    (options.engine.sequences, options.engine.waiting) = (1, 0);
    let address = start(options);
    for (stream, wanted) in [(true, 1), (false, 2)] {
        // Again where the answer was complete before the client had gone.
        let attempt = || {
            hang_up(address, stream);
            let next = json!({"model": "tiny", "prompt": "x", "max_tokens": 1}).to_string();
            let ask = || send(address, "POST", "/v1/completions", &next).status;
            until("the place is free", ask, |status| *status == 200);
            aborted(address)
        };
        until("an answer is broken off", attempt, |aborted| *aborted >= wanted);
    }
}

/// Asks for a long answer, and leaves when it is being made.
fn hang_up(address: SocketAddr, stream: bool) {
    let body = json!({
        "model": "tiny", "prompt": "x", "max_tokens": 2000, "stream": stream, "ignore_eos": true,
    })
    .to_string();
    let mut connection = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n");
    write!(connection, "{head}\r\n{body}").unwrap();
    if stream {
        let mut lines = BufReader::new(&connection).lines();
        lines.find(|line| line.as_ref().unwrap().starts_with("data: ")).unwrap().unwrap();
    } else {
        // It may be over before it is seen; then the caller tries again.
        let running = "vllm:num_requests_running{model_name=\"tiny\"} 1";
        let is_running = || send(address, "GET", "/metrics", "").body.contains(running);
        let _ = (0..200).any(|_| is_running());
    }
}

fn aborted(address: SocketAddr) -> u64 {
    let text = send(address, "GET", "/metrics", "").body;
    let line = text.lines().find(|line| line.contains("finished_reason=\"abort\""));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}
