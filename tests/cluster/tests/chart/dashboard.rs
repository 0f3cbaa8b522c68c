//! Every query of the dashboard and of the alerts, asked of a real Prometheus that scrapes a real operator
//! and a real trainer. And what is scraped: names that others know, and series that end with their run.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::Termination;
use api::workspace::Phase;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Ending, Operator, Place, WORKSPACE, until};

use crate::support::{read, repository, tool};

/// Where the trainer answers: the port is the one that the operator asks at.
const TRAINER: &str = "127.0.88.1";

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The trainer's program on a tiny model, with more steps than it will come to take.
fn trainer(folder: &Path) -> Running {
    testkit::tiny_model::write(&folder.join("model"), 1).unwrap();
    let rows = (0..40).map(|row| format!("{{\"prompt\": \"{row}\", \"completion\": \"yes\"}}\n"));
    fs::write(folder.join("train.jsonl"), rows.collect::<String>()).unwrap();
    let workspace = json!({
        "apiVersion": "anneal.dev/v1alpha1", "kind": "FineTuneWorkspace",
        "metadata": {"name": "reviews"},
        "spec": {
            "baseModel": {"path": folder.join("model")},
            "data": {
                "train": {"path": folder.join("train.jsonl")},
                "validation": {"fraction": 0.2},
            },
            "evaluation": {"everySteps": 5},
            "hyperparameters": {"maxSteps": 1_000_000, "batchSize": 2},
        },
    });
    fs::write(folder.join("tune.yaml"), workspace.to_string()).unwrap();
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("trainer-image");
    let mut command = Command::new(program);
    command.arg("train").stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(folder.join("log")).unwrap());
    command
        .env("ANNEAL_WORKSPACE", folder.join("tune.yaml"))
        .env("ANNEAL_WORK", folder.join("work"));
    command.env("ANNEAL_TERMINATION_LOG", folder.join("end"));
    command.env("ANNEAL_LISTEN", format!("{TRAINER}:{}", plan::render::PORT));
    command.env("OMP_WAIT_POLICY", "PASSIVE").env("OMP_NUM_THREADS", "1");
    Running(command.spawn().unwrap())
}

/// A running Prometheus.
struct Prometheus {
    address: String,
    folder: TempDir,
    _process: Running,
}

impl Prometheus {
    fn start(operator: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let trainer = format!("{TRAINER}:{}", plan::render::PORT);
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [repository("deploy/alerts/anneal.rules.yaml")],
            "scrape_configs": [
                // As the monitors of the chart have it.
                {"job_name": "anneal", "honor_labels": true, "static_configs": [{"targets": [operator]}]},
                {"job_name": "trainers", "static_configs": [{"targets": [trainer],
                    "labels": {"namespace": "dashboard", "workspace": "reviews"}}]},
            ],
        });
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = tool("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        let process = Running(command.spawn().unwrap());
        Self { address, folder, _process: process }
    }

    /// The result of a query; `None` while Prometheus does not answer.
    fn query(&self, query: &str) -> Option<Value> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in query.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        let answer: Value = serde_json::from_str(&get(&self.address, &path)?).unwrap();
        assert_eq!(answer["status"], "success", "{query}\n{answer}");
        Some(answer["data"]["result"].clone())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// The body of an answer. HTTP/1.0, so that it comes in one piece.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (!head.contains(" 503 ")).then(|| body.to_owned())
}

/// Asks until it is so, for a minute and a half.
async fn eventually(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let mut every = tokio::time::interval(Duration::from_millis(250));
    let mut last = String::new();
    for _ in 0..360 {
        every.tick().await;
        match is_so() {
            Ok(()) => return,
            Err(why) => last = why,
        }
    }
    panic!("{what}: {last}");
}

/// The queries of the dashboard, with Grafana's variables put in.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboards/anneal.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$namespace", ".*").replace("$__rate_interval", "30s");
            let query = query.replace("$__range", "1h");
            assert!(!query.contains('$'), "a variable that is not known: {query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// A running training that holds two GPUs, and a run that failed.
async fn runs(place: &Place) {
    let failing = WORKSPACE.replace("name: reviews", "name: afails");
    place.apply(&failing).await.unwrap();
    place.end_pod("-pre", Ending::exit(10)).await.unwrap();
    until(&place.workspaces, "afails", |workspace: Option<&api::FineTuneWorkspace>| {
        let status = workspace.and_then(|workspace| workspace.status.as_ref());
        status.is_some_and(|status| status.phase == Some(Phase::Failed))
    })
    .await
    .unwrap();
    place.workspaces.delete("afails", &kube::api::DeleteParams::default()).await.unwrap();
    gone(place).await;

    place.apply(&format!("{WORKSPACE}  compute: {{gpus: 2}}\n")).await.unwrap();
    place.end_pod("-pre", Ending::well(Termination::default())).await.unwrap();
    let (_, pod) = place.pod_of("-t0").await.unwrap();
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let scheduled = json!({"status": {"conditions":
        [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now}]}});
    let name = pod.metadata.name.unwrap();
    let merge = Patch::Merge(&scheduled);
    place.pods.patch_status(&name, &PatchParams::default(), &merge).await.unwrap();
    place.run_pod_at("-t0", TRAINER).await.unwrap();
}

async fn gone(place: &Place) {
    let mut every = tokio::time::interval(Duration::from_millis(200));
    for _ in 0..300 {
        every.tick().await;
        if place.left().await.unwrap().is_empty() {
            return;
        }
    }
    panic!("{:?} are left", place.left().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_has_an_answer() {
    if !needs_control_plane("every_query_has_an_answer") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(folder.path());
    let place = Place::new("dashboard").await.unwrap();
    let operator = Operator::start(&place, true).unwrap();
    // It answers, and has written its address by then.
    operator.ask("/healthz").await.unwrap();
    let log = operator.log().unwrap();
    let (_, address) = log.split_once("\"address\":\"").unwrap();
    let address = address.split('"').next().unwrap().to_owned();
    let prometheus = Prometheus::start(&address);
    runs(&place).await;

    let metrics = || get(&address, "/metrics").unwrap_or_default();
    eventually("the trainer's word comes into the metrics", || {
        if let Some(ended) = trainer.0.try_wait().unwrap() {
            panic!(
                "the trainer {ended}: {}",
                fs::read_to_string(folder.path().join("log")).unwrap()
            );
        }
        let text = metrics();
        let has = text
            .contains("anneal_workspace_valid_loss{namespace=\"dashboard\",workspace=\"reviews\"}");
        if has { Ok(()) } else { Err(text) }
    })
    .await;
    known_names(&metrics());
    // Two scrapes at least after that.
    for (panel, query) in queries() {
        eventually(&format!("`{panel}` has no answer to {query}\n{}", prometheus.log()), || {
            let result = prometheus.query(&query).ok_or("Prometheus does not answer")?;
            let is_empty = result.as_array().is_none_or(Vec::is_empty);
            if is_empty { Err(metrics()) } else { Ok(()) }
        })
        .await;
    }
    alerts_are_loaded(&prometheus);

    // With the run its series end, and what it took is counted.
    place.end_pod("-t0", Ending::exit(10)).await.unwrap();
    eventually("the series of a run that ended are still there", || {
        let text = metrics();
        let is_there = text.contains("workspace=\"reviews\"");
        let is_counted = text.contains("anneal_train_seconds_count{outcome=\"failed\"} 1")
            && text.contains("anneal_runs_total{phase=\"Failed\",reason=\"InvalidData\"} 2");
        if is_counted && !is_there { Ok(()) } else { Err(text) }
    })
    .await;
    place.workspaces.delete("reviews", &kube::api::DeleteParams::default()).await.unwrap();
    gone(&place).await;
    eventually("the series of a namespace without workspaces are still there", || {
        let text = metrics();
        if text.contains("namespace=\"dashboard\"") { Err(text) } else { Ok(()) }
    })
    .await;
}

fn alerts_are_loaded(prometheus: &Prometheus) {
    let answer = get(&prometheus.address, "/api/v1/rules").unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let groups = answer["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() >= 10, "{answer}");
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
}

/// Names of controller-runtime and client-go, which dashboards of others ask for.
fn known_names(text: &str) {
    for name in [
        "controller_runtime_active_workers",
        "controller_runtime_max_concurrent_reconciles",
        "controller_runtime_reconcile_errors_total",
        "controller_runtime_reconcile_time_seconds_bucket",
        "controller_runtime_reconcile_total",
        "leader_election_master_status",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "rest_client_requests_total",
        "workqueue_adds_total",
        "workqueue_depth",
        "workqueue_longest_running_processor_seconds",
        "workqueue_queue_duration_seconds_bucket",
        "workqueue_retries_total",
        "workqueue_unfinished_work_seconds",
        "workqueue_work_duration_seconds_bucket",
    ] {
        let has = |line: &str| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
        };
        assert!(text.lines().any(has), "there is no {name} in\n{text}");
    }
    let value = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let passes =
        text.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total{"));
    let passes: f64 =
        passes.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    let (adds, waits) =
        (value("workqueue_adds_total{"), value("workqueue_queue_duration_seconds_count{"));
    // What came in was worked on, but for what waits at this moment or is gone.
    assert!(
        passes >= 1.0 && waits >= passes && adds >= waits,
        "{adds} adds, {waits} waits, {passes} passes"
    );
    assert!(value("process_resident_memory_bytes") > 1e6);
}
