//! Stands in for vLLM in a pod, as far as adapters go: its command line, its API.

#![expect(clippy::unwrap_used, reason = "a test's program")]
#![allow(dead_code, reason = "the tests of crate `serve` use more of it")]

#[path = "../../../../crates/serve/tests/support/vllm.rs"]
mod stand_in;

use stand_in::Vllm;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name).unwrap();
        arguments[place + 1].as_str()
    };
    let model = std::path::Path::new(&arguments[2]).join("config.json");
    assert!(arguments[1] == "serve" && model.is_file(), "no model: {arguments:?}");
    for folder in ["HOME", "TMPDIR"].map(|name| std::env::var(name).unwrap_or("/tmp".to_owned())) {
        std::fs::write(format!("{folder}/cache"), "kernels").unwrap();
    }
    let address = format!("{}:{}", value("--host"), value("--port")).parse().unwrap();
    let _server = Vllm::start(value("--served-model-name"), Some(address));
    // The kubelet's signal ends it.
    loop {
        std::thread::park();
    }
}
