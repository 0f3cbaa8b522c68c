//! A pool is made once the run is admitted and goes with its end, in every way a run can end.

use std::net::SocketAddr;
use std::time::Duration;

use api::condition::READY;
use api::termination::Stage as Doing;
use api::workspace::Phase;
use api::{Termination, TrainerStatus};
use axum::Router;
use axum::routing::get;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
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

/// Nothing before preflight has passed; a pool within seconds of admission; and after success nothing is
/// left, the sums are in the status, and little more was held than used.
#[tokio::test]
async fn success_gives_the_node_back() {
    let name = "success_gives_the_node_back";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let registry = Registry::open().unwrap();
    let adapter = push(&registry).await;
    let stage = Stage::new("success").await;
    let run = stage.run("reviews");
    stage.place.apply(&workspace("reviews", "", &output(Some(&registry)))).await.unwrap();
    run.reached(Phase::Preflight).await;
    run.pod("preflight", |_| true).await;
    assert!(stage.place.pool_of("reviews").await.unwrap().is_none());
    run.preflight(SMALL).await;

    let pool = run.pool().await;
    let made = run.capacity(&pool).await.pool.unwrap().creation_timestamp().unwrap().0;
    let job = stage.place.jobs.get(&stage.place.job_name("-t0").await.unwrap()).await.unwrap();
    let admitted = job.status.unwrap().start_time.unwrap().0;
    let took = made.duration_since(admitted).as_secs();
    assert!(took <= PROMPT, "{took} s from admission to a pool");

    let pod = run.runs().await;
    run.reached(Phase::Training).await;
    // The work itself: GPU-seconds held are measured against these.
    tokio::time::sleep(TRAINING).await;
    let report = Termination { adapter: Some(adapter), ..Termination::default() };
    run.end(&pod, Ending::well(report)).await;
    run.reached(Phase::Succeeded).await;
    let took = run.released(&pool).await;
    let is_over = |status: &api::workspace::FineTuneWorkspaceStatus| {
        let capacity = status.capacity.as_ref();
        capacity.is_some_and(|all| {
            all.pool.is_none() && all.uses.iter().all(|one| one.released.is_some())
        })
    };
    let capacity = run.until(is_over).await.capacity.unwrap();
    let (held, used) = (capacity.gpu_seconds.held, capacity.gpu_seconds.used);
    eprintln!("gone after {took:?}, held {held} s, used {used} s: {:?}", capacity.seconds);
    assert!(used >= TRAINING.as_secs(), "{capacity:?}");
    assert!(held >= used && held as f64 <= MOST_HELD * used as f64, "{capacity:?}");
    assert!(capacity.gpu_seconds.asked >= used, "{capacity:?}");
    assert_eq!(capacity.seconds.training, used, "{capacity:?}");
    let workspace = stage.place.workspaces.get("reviews").await.unwrap();
    assert_eq!(workspace.finalizers(), [""; 0]);
}

/// Failure, cancellation, deletion and a trainer that hangs, at the same time.
#[tokio::test]
async fn every_other_end_gives_the_node_back() {
    if !needs_control_plane("every_other_end_gives_the_node_back") {
        return;
    }
    let stage = Stage::new("ends").await;
    let all = ["fails", "cancelled", "deleted", "hangs"].map(|name| stage.run(name));
    let [fails, cancelled, deleted, hangs] = all;
    tokio::join!(fail(fails), cancel(cancelled), delete(deleted), hang(hangs));
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
    run.end(&pod, Ending::exit(10)).await;
    let status = run.reached(Phase::Failed).await;
    assert_eq!(ready(&status).0, "InvalidData");
    run.released(&pool).await;
}

async fn cancel(run: Run<'_>) {
    let pool = training(run, "").await;
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    let workspaces = &run.place.workspaces;
    workspaces.patch(run.name, &PatchParams::default(), &suspend).await.unwrap();
    run.reached(Phase::Suspended).await;
    run.released(&pool).await;
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

/// A trainer that says of itself that it has done nothing for longer than it may.
async fn hang(run: Run<'_>) {
    let address = "127.9.8.6";
    let at: SocketAddr = format!("{address}:{}", plan::render::PORT).parse().unwrap();
    let listener = TcpListener::bind(at).await.unwrap();
    let status = TrainerStatus {
        stage: Doing::Training,
        idle_seconds: Some(3600),
        ..TrainerStatus::default()
    };
    let status = serde_json::to_string(&status).unwrap();
    let router = Router::new().route("/status", get(move || std::future::ready(status)));
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
    let status = run.reached(Phase::Failed).await;
    let why = status.conditions.iter().find(|one| one.type_ == READY).unwrap();
    assert_eq!(why.reason, "TrainerStalled", "{why:?}");
    run.released(&pool).await;
    server.abort();
}
