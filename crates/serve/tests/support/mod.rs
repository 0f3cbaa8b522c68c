//! A tiny model with adapters, and a server of it in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use lm::adapters::LinearShapes;
use lm::files::ModelFiles;
use lm::lora::LoraConfig;
use lm::model::{LoadOptions, Model};
use serve::{ServeOptions, Started};
use tch::{Device, Kind, Tensor};

/// A folder with a model, adapters, and the file that declares them.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        testkit::tiny_model::write(&folder.path().join("model"), 1).unwrap();
        let bench = Self { folder };
        bench.declare("");
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the file of declared adapters; `rows` are its entries.
    pub(crate) fn declare(&self, rows: &str) {
        let new = self.path("adapters.new");
        std::fs::write(&new, format!("adapters:\n{rows}")).unwrap();
        std::fs::rename(new, self.path("adapters.yaml")).unwrap();
    }

    pub(crate) fn files(&self) -> ModelFiles {
        ModelFiles::open(&self.path("model")).unwrap()
    }

    pub(crate) fn model(&self) -> Model {
        let options = LoadOptions { kind: Kind::Float, device: Device::Cpu, quantization: None };
        Model::load(&self.files(), options).unwrap()
    }

    pub(crate) fn shapes(&self) -> LinearShapes {
        self.model().linear_shapes()
    }

    /// Writes an adapter that changes the model a lot; equal seeds give equal files.
    pub(crate) fn adapter(&self, name: &str, rank: i64, seed: i64) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut model = self.model();
        let config = LoraConfig::all_linear(rank);
        model.attach_lora(&config, 0).unwrap();
        tch::manual_seed(seed);
        for param in model.trainable() {
            param.assign(&(Tensor::randn(param.value().size(), (Kind::Float, Device::Cpu)) * 0.1));
        }
        lm::peft::save(&model, &config, "tiny", &folder).unwrap();
        folder
    }

    pub(crate) fn options(&self) -> ServeOptions {
        let model = self.path("model");
        let mut options = ServeOptions::new(model, "tiny".to_owned(), self.path("cache"));
        options.engine.cache_bytes = 4 << 20;
        options.engine.sequences = 8;
        options.engine.waiting = 24;
        options.engine.step_tokens = 64;
        options.adapters.file = Some(self.path("adapters.yaml").into());
        options.adapters.every = Duration::from_millis(50);
        options
    }
}

/// Starts a server on a thread that ends with this process.
pub(crate) fn start(options: ServeOptions) -> SocketAddr {
    started(options).address
}

/// The same, and where a controller reaches it.
pub(crate) fn start_controlled(options: ServeOptions) -> (SocketAddr, SocketAddr) {
    let started = started(options);
    (started.address, started.control.unwrap())
}

fn started(options: ServeOptions) -> Started {
    let (told, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let failed = told.clone();
        let result = serve::run(options, |started| told.send(Ok(started.clone())).unwrap());
        if let Err(error) = result {
            let _ = failed.send(Err(error.to_string()));
        }
    });
    hear.recv_timeout(Duration::from_mins(2)).unwrap().unwrap()
}

/// Asks again until `holds` does.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    let start = std::time::Instant::now();
    loop {
        let answer = ask();
        if holds(&answer) {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{what}: still {answer:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A response: status, headers in lower case, body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).map_err(|e| format!("{e}: {}", self.body)).unwrap()
    }
}

/// One request on a connection of its own.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> Response {
    send_as(address, method, path, body, "")
}

/// The same with more headers.
pub(crate) fn send_as(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    headers: &str,
) -> Response {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Response { status, headers, body: body.to_owned() }
}

/// The file of weights of an adapter.
pub(crate) fn weights(folder: &Path) -> PathBuf {
    folder.join(lm::peft::ADAPTER_WEIGHTS)
}
