//! The operator with many workspaces, measured; `cargo xtask bench operator` builds and runs it.
//!
//! All but a few of the workspaces wait with a pod that no node takes; the others run, which their pods'
//! status says: nothing trains. The last line is one JSON object.

#![expect(clippy::print_stdout, reason = "its output is the result")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::workspace::Phase;
use serde::Serialize;
use testkit::cluster::User;
use testkit::registry::Registry;
use tests_cluster::Operator;
use tests_cluster::load::{Audit, Kubelet, Latency, Load, Memory, Requests, cpu_seconds, memory};

/// How long the operator is watched while nothing changes.
const WINDOW: Duration = Duration::from_mins(1);
/// Changes whose time is taken, and lives whose requests are counted.
const CHANGES: usize = 300;
const FIRST_JOBS: usize = 30;
const LIVES: usize = 10;

/// What was measured; memory in bytes, times in seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    workspaces: usize,
    running: usize,
    idle: Memory,
    /// From the first workspace made until all stood.
    load_seconds: f64,
    loaded: Memory,
    steady: Steady,
    /// From a change of a spec to the change of its Job.
    change: Latency,
    /// From a new workspace to its first Job.
    first_job: Latency,
    lives: usize,
    /// By verb and resource, of all lives.
    life_requests: Requests,
    restart: Restart,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Steady {
    seconds: f64,
    requests: Requests,
    writes: u64,
    writes_beside_leases: u64,
    cpu_millicores: f64,
    memory: Memory,
}

/// A start with all workspaces there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Restart {
    /// Until `/readyz` says ok: the caches are full, the Lease is held.
    ready_seconds: f64,
    /// Until every workspace was looked at.
    passes_seconds: f64,
    writes_beside_leases: u64,
    memory: Memory,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let workspaces = numbers.next().transpose().context("workspaces")?.unwrap_or(1000);
    let report = measure(workspaces).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// One in ten runs, and so do the whole lives.
fn runs(name: &str) -> bool {
    name.ends_with('7') || name.starts_with("life")
}

async fn measure(workspaces: usize) -> Result<Report> {
    ensure!(workspaces >= 10 && workspaces.is_multiple_of(10), "a multiple of ten, please");
    let running = workspaces / 10;
    let registry = Registry::open()?;
    let load = Load::new(10).await?;
    let host = registry.host();
    let mut operator = start(&load, &host)?;
    ready(&operator).await?;
    let idle = memory(operator.id())?;
    told("idle", &idle);

    let kubelet = Kubelet::start(&load.client, runs);
    let begin = Instant::now();
    load.create(0..workspaces).await?;
    load.until(Phase::Training, running).await?;
    load.until(Phase::Provisioning, workspaces - running).await?;
    let load_seconds = begin.elapsed().as_secs_f64();
    let loaded = memory(operator.id())?;
    told("loaded", &(load_seconds, loaded));
    load.until_quiet(Duration::from_secs(10)).await?;

    let steady = steady(&load, &operator).await?;
    told("steady", &steady);
    let change = load.change_deadlines(CHANGES.min(workspaces)).await?;
    told("change", &change);
    let first_job = load.first_jobs(workspaces..workspaces + FIRST_JOBS).await?;
    told("first job", &first_job);
    let life_requests = load.lives(LIVES, &registry).await?;
    told("lives", &life_requests);
    operator.stop()?;
    let restart = restart(&load, &host, workspaces).await?;
    told("restart", &restart);
    drop(kubelet);
    Ok(Report {
        workspaces,
        running,
        idle,
        load_seconds,
        loaded,
        steady,
        change,
        first_job,
        lives: LIVES,
        life_requests,
        restart,
    })
}

fn told(what: &str, value: &impl std::fmt::Debug) {
    eprintln!("{what}: {value:?}");
}

fn start(load: &Load, plain_http: &str) -> Result<Operator> {
    let arguments = ["--lease-namespace", "anneal-system", "--plain-http", plain_http];
    Operator::start_with(&load.plane.kubeconfig(User::Operator), "info", &arguments)
}

async fn ready(operator: &Operator) -> Result<()> {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..3000 {
        every.tick().await;
        if operator.ask("/readyz").await?.starts_with("HTTP/1.1 200") && leads(operator).await? {
            return Ok(());
        }
    }
    anyhow::bail!("the operator does not get ready:\n{}", operator.log()?)
}

async fn leads(operator: &Operator) -> Result<bool> {
    let metrics = operator.ask("/metrics").await?;
    Ok(metrics.contains("leader_election_master_status{name=\"anneal-operator\"} 1"))
}

async fn steady(load: &Load, operator: &Operator) -> Result<Steady> {
    let audit = Audit::from_now(load.plane)?;
    let (begin, cpu) = (Instant::now(), cpu_seconds(operator.id())?);
    tokio::time::sleep(WINDOW).await;
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds(operator.id())? - cpu);
    let requests = audit.requests()?;
    Ok(Steady {
        seconds,
        writes: requests.writes(),
        writes_beside_leases: requests.writes_beside_leases(),
        requests,
        cpu_millicores: cpu / seconds * 1e3,
        memory: memory(operator.id())?,
    })
}

async fn restart(load: &Load, plain_http: &str, workspaces: usize) -> Result<Restart> {
    let audit = Audit::from_now(load.plane)?;
    let begin = Instant::now();
    let operator = start(load, plain_http)?;
    ready(&operator).await?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while passes(&operator).await? < workspaces as f64 {
        every.tick().await;
        ensure!(begin.elapsed() < Duration::from_mins(5), "not every workspace is looked at");
    }
    let passes_seconds = begin.elapsed().as_secs_f64();
    load.until_quiet(Duration::from_secs(10)).await?;
    Ok(Restart {
        ready_seconds,
        passes_seconds,
        writes_beside_leases: audit.requests()?.writes_beside_leases(),
        memory: memory(operator.id())?,
    })
}

/// Passes that were made, by the operator's own count.
async fn passes(operator: &Operator) -> Result<f64> {
    let metrics = operator.ask("/metrics").await?;
    let lines =
        metrics.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
