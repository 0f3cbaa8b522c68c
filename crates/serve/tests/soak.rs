//! Mixed load while adapters come and go: no error but the declared ones, every stream well formed, memory
//! flat. Short by default; `cargo xtask bench soak` sets `ANNEAL_SOAK_SECONDS`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![allow(dead_code, reason = "every test binary uses a part of the support")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Bench, Response, send, start, until};
use testkit::registry::Registry;

/// Clients at once; the server answers eight and lets four wait.
const CLIENTS: u64 = 16;
/// Largest growth of memory after the first fifth of a long soak.
const GROWTH: u64 = 64 << 20;

#[test]
fn adapters_come_and_go_under_load_without_an_error() {
    let seconds = std::env::var("ANNEAL_SOAK_SECONDS").ok().map(|text| text.parse().unwrap());
    let (bench, registry) = (Bench::new(), Registry::open().unwrap());
    let images: Vec<String> = ["a", "b"]
        .map(|name| {
            let image = format!("{}/team/{name}:v1", registry.host());
            push(&bench.adapter(name, 4, 1), &image);
            image
        })
        .into();
    let mut options = bench.options();
    options.engine.waiting = 4;
    let address = start(options);
    let (over, counts) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (over, counts) = (&over, &counts);
            scope.spawn(move || ask_again_and_again(address, client, over, counts));
        }
        let began = Instant::now();
        for round in 0_i64.. {
            let pause = seconds.map_or(Duration::ZERO, |_| Duration::from_secs(5));
            come_and_go(&bench, address, &images, round, pause);
            memory.push((began.elapsed(), resident()));
            if seconds.map_or(round == 2, |seconds| began.elapsed().as_secs() >= seconds) {
                break;
            }
        }
        over.store(true, Ordering::Release);
    });
    let counts = counts.into_inner().unwrap();
    println!("answers by status: {counts:?}; memory: {:?} to {:?}", memory[0], memory.last());
    assert!(counts[&200] > 0);
    assert!(counts.keys().all(|status| [200, 404, 429].contains(status)), "{counts:?}");
    let running = || send(address, "GET", "/metrics", "").body;
    let none = "vllm:num_requests_running{model_name=\"tiny\"} 0";
    until("nothing is left running", running, |text| text.contains(none));
    if seconds.is_some() {
        let settled = memory[memory.len() / 5].1;
        let last = memory.last().unwrap().1;
        assert!(last < settled + GROWTH, "memory grew from {settled} to {last} bytes");
    }
}

/// One turn: a new revision of both adapters is served, then one of them, then none.
fn come_and_go(bench: &Bench, address: SocketAddr, images: &[String], round: i64, pause: Duration) {
    let row = |name: &str, image: &str| format!("- {{name: {name}, image: \"{image}\"}}\n");
    let both = [row("a", &images[0]), row("b", &images[1])];
    let digests = [("a", 0), ("b", 1)].map(|(name, index)| {
        push(&bench.adapter(name, 4, 2 * round + index), &images[index as usize])
    });
    for (rows, expected) in
        [(both.concat(), &digests[..]), (both[0].clone(), &digests[..1]), (String::new(), &[])]
    {
        bench.declare(&rows);
        let served = || {
            let body = send(address, "GET", "/anneal/adapters", "").json();
            let all = body["adapters"].as_array().unwrap().clone();
            all.iter().map(|one| one["digest"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let _: Vec<String> = until("what is declared is served", served, |all| all == expected);
        std::thread::park_timeout(pause);
    }
}

fn ask_again_and_again(
    address: SocketAddr,
    client: u64,
    over: &AtomicBool,
    counts: &Mutex<BTreeMap<u16, u64>>,
) {
    for number in 0.. {
        if over.load(Ordering::Acquire) {
            return;
        }
        let model = ["tiny", "a", "b"][(client + number) as usize % 3];
        let stream = (client + number / 3).is_multiple_of(2);
        let body = json!({
            "model": model, "prompt": "x".repeat(1 + (number % 50) as usize), "stream": stream,
            "max_tokens": 1 + (client * 7 + number) % 40, "ignore_eos": true, "seed": number,
        });
        let response = send(address, "POST", "/v1/completions", &body.to_string());
        *counts.lock().unwrap().entry(response.status).or_insert(0) += 1;
        match response.status {
            200 if stream => well_formed(&response),
            200 => assert_eq!(response.json()["choices"][0]["finish_reason"], "length"),
            404 => assert_ne!(model, "tiny"),
            429 => {
                assert!(response.headers.contains_key("retry-after"));
                std::thread::park_timeout(Duration::from_millis(20));
            }
            other => assert_eq!(other, 200, "{}", response.body),
        }
    }
}

/// Every frame is JSON, the last but one tells why the answer ended, and the last is the end.
fn well_formed(response: &Response) {
    let frames: Vec<&str> =
        response.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(frames.last(), Some(&"[DONE]"), "{}", response.body);
    let frames: Vec<Value> =
        frames[..frames.len() - 1].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let reasons: Vec<&Value> = frames
        .iter()
        .map(|frame| &frame["choices"][0]["finish_reason"])
        .filter(|reason| !reason.is_null())
        .collect();
    assert_eq!(reasons, [&json!("length")]);
}

fn push(folder: &Path, image: &str) -> String {
    let made = oci::adapter_image(folder, &BTreeMap::new()).unwrap();
    oci::blocking::push(&made, &image.parse().unwrap(), &oci::Options::default()).unwrap().digest
}

/// Bytes of this process in memory: server and clients.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}
