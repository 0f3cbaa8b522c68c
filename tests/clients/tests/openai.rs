//! OpenAI's own client, unmodified, drives a server with a base model and an adapter.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use lm::files::ModelFiles;
use lm::lora::LoraConfig;
use lm::model::{LoadOptions, Model};
use serve::ServeOptions;
use tch::{Device, Kind, Tensor};

#[test]
fn openais_client_gets_what_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    testkit::tiny_model::write(&folder.path().join("model"), 1).unwrap();
    adapter(folder.path());
    let requirements = here("scripts/openai_requirements.txt");
    let python = testkit::python::environment("venv-openai", &requirements).unwrap();
    let address = start(options(folder.path()));
    let tools = tempfile::tempdir().unwrap();
    let tools = start(with_tools(tools.path()));
    let mut script = testkit::python::script(&python, &here("scripts/openai_flows.py"));
    let [url, tools] = [address, tools].map(|address| format!("http://{address}/v1"));
    script.args([url.as_str(), "secret", "tiny", "team/reviews:1", "2048", tools.as_str()]);
    testkit::python::succeed(&mut script).unwrap();
}

/// A server whose chat template has a place for tools.
fn with_tools(folder: &Path) -> ServeOptions {
    testkit::tiny_model::write(&folder.join("model"), 1).unwrap();
    let path = folder.join("model/tokenizer_config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let template = config["chat_template"].as_str().unwrap();
    let with = format!("{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{template}");
    config["chat_template"] = with.into();
    std::fs::write(path, config.to_string()).unwrap();
    let mut options = options(folder);
    options.adapters.file = None;
    options
}

fn options(folder: &Path) -> ServeOptions {
    let model = folder.join("model");
    let mut options = ServeOptions::new(model, "tiny".to_owned(), folder.join("cache"));
    options.engine.cache_bytes = 16 << 20;
    options.engine.sequences = 8;
    options.engine.waiting = 24;
    options.adapters.file = Some(folder.join("adapters.yaml").into());
    options.adapters.every = Duration::from_millis(50);
    options.http.keys = [oci::sha256(b"secret")].into();
    options
}

/// Starts a server on a thread that ends with this process, and waits until it is ready.
fn start(options: ServeOptions) -> SocketAddr {
    let (told, hear) = mpsc::channel();
    std::thread::spawn(move || {
        serve::run(options, |started| told.send(started.address).unwrap()).unwrap();
    });
    let address = hear.recv_timeout(Duration::from_mins(2)).unwrap();
    let start = std::time::Instant::now();
    while !ready(address) {
        assert!(start.elapsed() < Duration::from_mins(1), "the server is not ready");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    address
}

fn ready(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.starts_with("HTTP/1.1 200")
}

/// An adapter that changes the model a lot, and the file that declares it.
fn adapter(folder: &Path) {
    let files = ModelFiles::open(&folder.join("model")).unwrap();
    let options = LoadOptions { kind: Kind::Float, device: Device::Cpu, quantization: None };
    let mut model = Model::load(&files, options).unwrap();
    let config = LoraConfig::all_linear(4);
    model.attach_lora(&config, 0).unwrap();
    tch::manual_seed(5);
    for param in model.trainable() {
        param.assign(&(Tensor::randn(param.value().size(), (Kind::Float, Device::Cpu)) * 0.1));
    }
    let place = folder.join("adapter");
    std::fs::create_dir(&place).unwrap();
    lm::peft::save(&model, &config, "tiny", &place).unwrap();
    let text = format!("adapters:\n- {{name: 'team/reviews:1', path: '{}'}}\n", place.display());
    std::fs::write(folder.join("adapters.yaml"), text).unwrap();
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
