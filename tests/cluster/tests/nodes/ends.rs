//! A pool is made once the run is admitted and goes with its end, in every way a run can end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::condition::READY;
use api::termination::Stage as Doing;
use api::workspace::{AdapterStatus, CapacityStatus, FineTuneWorkspaceStatus, Phase};
use api::{Termination, TrainerStatus};
use axum::Router;
use axum::routing::get;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use testkit::cluster::tools::needs_control_plane;
use testkit::registry::{Registry, needs_go};
use tests_cluster::Ending;
use tokio::net::TcpListener;

use crate::support::{Run, SMALL, Stage, output, push, ready, workspace};

/// Longest time from admission to a pool.
const PROMPT: i64 = 5;
/// A training that is long beside what a node takes to come and to go here.
const TRAINING: Duration = Duration::from_mins(2);
/// GPU-seconds held for each that was used.
const MOST_HELD: f64 = 1.15;

/// Success, failure, cancellation, deletion and a trainer that hangs, at the same time.
#[tokio::test]
async fn every_end_gives_the_node_back() {
    let name = "every_end_gives_the_node_back";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let registry = Registry::open().unwrap();
    let adapter = push(&registry).await;
    let stage = Stage::new("ends").await;
    let all = ["succeeds", "fails", "cancelled", "deleted", "hangs"].map(|name| stage.run(name));
    let [succeeds, fails, cancelled, deleted, hangs] = all;
    tokio::join!(
        succeed(succeeds, &registry, adapter),
        fail(fails),
        cancel(cancelled),
        delete(deleted),
        hang(hangs)
    );
}

/// Nothing before preflight has passed; a pool within seconds of admission; and afterwards nothing is left.
async fn succeed(run: Run<'_>, registry: &Registry, adapter: AdapterStatus) {
    let place = run.place;
    place.apply(&workspace(run.name, "", &output(Some(registry)))).await.unwrap();
    run.reached(Phase::Preflight).await;
    run.pod("preflight", |_| true).await;
    assert!(place.pool_of(run.name).await.unwrap().is_none());
    run.preflight(SMALL).await;

    let pool = run.pool().await;
    let made = run.capacity(&pool).await.pool.unwrap().creation_timestamp().unwrap().0;
    let jobs = place.jobs.list(&ListParams::default()).await.unwrap();
    let is_its = |job: &&Job| {
        let name = job.name_any();
        name.starts_with(run.name) && name.ends_with("-t0")
    };
    let job = jobs.items.iter().find(is_its).unwrap();
    let admitted = job.status.as_ref().unwrap().start_time.as_ref().unwrap().0;
    let took = made.duration_since(admitted).as_secs();
    assert!(took <= PROMPT, "{took} s from admission to a pool");

    let pod = run.runs().await;
    run.reached(Phase::Training).await;
    work().await;
    let report = Termination { adapter: Some(adapter), ..Termination::default() };
    run.end(&pod, Ending::well(report)).await;
    run.reached(Phase::Succeeded).await;
    run.released(&pool).await;
    let capacity = little_was_idle(&run).await;
    assert_eq!(capacity.seconds.training, capacity.gpu_seconds.used, "{capacity:?}");
    let workspace = place.workspaces.get(run.name).await.unwrap();
    assert_eq!(workspace.finalizers(), [""; 0]);
}

/// The work itself: GPU-seconds held are measured against these.
async fn work() {
    tokio::time::sleep(TRAINING).await;
}

/// The sums in the status once all is given back: little more was held than used.
async fn little_was_idle(run: &Run<'_>) -> CapacityStatus {
    let is_over = |status: &FineTuneWorkspaceStatus| {
        let capacity = status.capacity.as_ref();
        capacity.is_some_and(|all| {
            all.pool.is_none() && all.uses.iter().all(|one| one.released.is_some())
        })
    };
    let capacity = run.until(is_over).await.capacity.unwrap();
    let (held, used) = (capacity.gpu_seconds.held, capacity.gpu_seconds.used);
    eprintln!("{}: held {held} s, used {used} s: {:?}", run.name, capacity.seconds);
    assert!(used >= TRAINING.as_secs(), "{}: {capacity:?}", run.name);
    assert!(held >= used && held as f64 <= MOST_HELD * used as f64, "{}: {capacity:?}", run.name);
    assert!(capacity.gpu_seconds.asked >= used, "{}: {capacity:?}", run.name);
    capacity
}

async fn training(run: Run<'_>, more: &str) -> String {
    run.place
        .apply(&workspace(run.name, "", &format!("{}\n  {more}", output(None))))
        .await
        .unwrap();
    run.preflight(SMALL).await;
    run.runs().await;
    run.reached(Phase::Training).await;
    run.pool().await
}

async fn fail(run: Run<'_>) {
    let pool = training(run, "").await;
    let pod = run.bound().await;
    work().await;
    run.end(&pod, Ending::exit(10)).await;
    let status = run.reached(Phase::Failed).await;
    assert_eq!(ready(&status).0, "InvalidData");
    run.released(&pool).await;
    little_was_idle(&run).await;
}

async fn cancel(run: Run<'_>) {
    let pool = training(run, "").await;
    work().await;
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    let workspaces = &run.place.workspaces;
    workspaces.patch(run.name, &PatchParams::default(), &suspend).await.unwrap();
    run.reached(Phase::Suspended).await;
    run.released(&pool).await;
    little_was_idle(&run).await;
    // And let go again it gets another one.
    let again = Patch::Merge(json!({"spec": {"suspend": false}}));
    workspaces.patch(run.name, &PatchParams::default(), &again).await.unwrap();
    run.runs().await;
    run.reached(Phase::Training).await;
    workspaces.delete(run.name, &DeleteParams::default()).await.unwrap();
    run.released(&pool).await;
}

async fn delete(run: Run<'_>) {
    let pool = training(run, "").await;
    run.place.workspaces.delete(run.name, &DeleteParams::default()).await.unwrap();
    run.released(&pool).await;
    let gone = |workspace: Option<&_>| workspace.is_none();
    tests_cluster::until(&run.place.workspaces, run.name, gone).await.unwrap();
}

/// A trainer that says of itself, after a while, that it has done nothing for longer than it may.
async fn hang(run: Run<'_>) {
    let address = "127.9.8.6";
    let at: SocketAddr = format!("{address}:{}", plan::render::PORT).parse().unwrap();
    let listener = TcpListener::bind(at).await.unwrap();
    let is_stuck = Arc::new(AtomicBool::new(false));
    let stuck = Arc::clone(&is_stuck);
    let status = move || {
        let idle = if stuck.load(Ordering::Acquire) { 3600 } else { 0 };
        let stage = Doing::Training;
        let status = TrainerStatus { stage, idle_seconds: Some(idle), ..TrainerStatus::default() };
        std::future::ready(serde_json::to_string(&status).unwrap())
    };
    let router = Router::new().route("/status", get(status));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let limits = format!("{}\n  limits: {{stall: 20m, retries: 0}}", output(None));
    run.place.apply(&workspace(run.name, "", &limits)).await.unwrap();
    run.preflight(SMALL).await;
    let pod = run.bound().await;
    let pool = run.pool().await;
    let at = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    let (pods, params) = (&run.place.pods, PatchParams::default());
    pods.patch_status(&pod.name_any(), &params, &Patch::Merge(at)).await.unwrap();
    run.runs().await;
    work().await;
    is_stuck.store(true, Ordering::Release);
    let status = run.reached(Phase::Failed).await;
    let why = status.conditions.iter().find(|one| one.type_ == READY).unwrap();
    assert_eq!(why.reason, "TrainerStalled", "{why:?}");
    run.released(&pool).await;
    little_was_idle(&run).await;
    server.abort();
}
