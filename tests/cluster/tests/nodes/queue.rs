//! In a queue of Kueue's: nothing is provisioned while a run is held, and what is asked for stays within the
//! quota.

use std::collections::BTreeSet;
use std::time::Duration;

use api::Termination;
use api::workspace::{AdapterStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;
use testkit::cluster::tools::needs_control_plane;
use testkit::registry::{Registry, needs_go};
use tests_cluster::kueue::{kueue, queue, workloads};
use tests_cluster::{Ending, Place, apply_all};

use crate::support::{Run, SMALL, Stage, ms, node_of, output, push, workspace};

/// Time that each run of the long queue trains.
const TRAINING: Duration = Duration::from_secs(2);
const RUNS: usize = 20;
const QUOTA: u32 = 4;

async fn stage(name: &str, gpus: u32) -> Stage {
    let stage = Stage::new(name).await;
    kueue(&stage.place).await.unwrap();
    queue(&stage.place, "team", gpus).await.unwrap();
    stage
}

/// A workspace in the queue; `more` are fields beside its output.
fn queued(name: &str, registry: Option<&Registry>, compute: &str) -> String {
    let plain = workspace(name, "", &output(registry));
    plain.replace("compute: {", &format!("compute: {{queueName: team, {compute}"))
}

/// The second of two runs over a quota of one GPU is held, and has no pool, until the first one ends.
#[tokio::test]
async fn nothing_while_the_queue_holds_it() {
    let name = "nothing_while_the_queue_holds_it";
    if !needs_control_plane(name) {
        return;
    }
    let stage = stage("held", 1).await;
    let (first, second) = (stage.run("first"), stage.run("second"));
    stage.place.apply(&queued("first", None, "")).await.unwrap();
    first.preflight(SMALL).await;
    let pod = first.runs().await;
    first.reached(Phase::Training).await;
    let pool = first.pool().await;
    stage.place.apply(&queued("second", None, "")).await.unwrap();
    second.preflight(SMALL).await;
    second.reached(Phase::Queued).await;
    // Kueue knows of it, and lets it wait.
    let mut every = tokio::time::interval(ms(100));
    while workloads(&stage.place).await.unwrap().len() < 2 {
        every.tick().await;
    }
    assert!(stage.place.pool_of("second").await.unwrap().is_none());
    assert_eq!(second.status().await.phase, Some(Phase::Queued));
    first.end(&pod, Ending::exit(10)).await;
    first.reached(Phase::Failed).await;
    second.runs().await;
    second.reached(Phase::Training).await;
    first.released(&pool).await;
    let status = second.status().await.capacity.unwrap();
    assert!(status.seconds.queued > 0, "{status:?}");
}

/// A run of higher priority takes the quota: the other one's pod and pool go, and it goes on later.
#[tokio::test]
async fn a_run_that_is_preempted_goes_on_later() {
    let name = "a_run_that_is_preempted_goes_on_later";
    if !needs_control_plane(name) {
        return;
    }
    let stage = stage("preempted", 1).await;
    for (name, value) in [("nodes-low", 1), ("nodes-high", 100)] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value});
        apply_all(&stage.place.client, &class.to_string()).await.unwrap();
    }
    let (low, high) = (stage.run("low"), stage.run("high"));
    stage.place.apply(&queued("low", None, "priorityClassName: nodes-low, ")).await.unwrap();
    low.preflight(SMALL).await;
    let before = low.runs().await;
    low.reached(Phase::Training).await;
    let pool = low.pool().await;
    stage.place.apply(&queued("high", None, "priorityClassName: nodes-high, ")).await.unwrap();
    high.preflight(SMALL).await;
    let pod = high.runs().await;
    high.reached(Phase::Training).await;
    low.reached(Phase::Queued).await;
    low.released(&pool).await;
    high.end(&pod, Ending::exit(10)).await;
    high.reached(Phase::Failed).await;
    let after = low.runs().await;
    assert_ne!(before.name_any(), after.name_any());
    let status = low.reached(Phase::Training).await;
    assert_eq!(status.attempts.len(), 2, "{:?}", status.attempts);
    assert_eq!(status.capacity.unwrap().interruptions, 0);
}

/// Twenty runs over a quota of four GPUs come to their end, and there are never pods for more.
#[tokio::test]
async fn a_long_queue_stays_within_its_quota() {
    let name = "a_long_queue_stays_within_its_quota";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let registry = Registry::open().unwrap();
    let adapter = push(&registry).await;
    let stage = stage("queue", QUOTA).await;
    let names: Vec<String> = (0..RUNS).map(|number| format!("run-{number}")).collect();
    for name in &names {
        stage.place.apply(&queued(name, Some(&registry), "")).await.unwrap();
    }
    let all_end = async {
        for name in &names {
            stage.run(name).reached(Phase::Succeeded).await;
        }
    };
    let most = tokio::select! {
        () = all_end => None,
        most = work(&stage.place, &adapter) => Some(most),
    };
    assert_eq!(most, None, "GPUs asked for at the same time");
    for name in &names {
        let mut every = tokio::time::interval(ms(300));
        while stage.place.pool_of(name).await.unwrap().is_some() {
            every.tick().await;
        }
    }
}

/// The kubelet's part for all pods of the namespace. Ends only where pods ask for more than the quota.
async fn work(place: &Place, adapter: &AdapterStatus) -> usize {
    let mut every = tokio::time::interval(ms(200));
    let mut ended = BTreeSet::new();
    loop {
        every.tick().await;
        let pods = place.pods.list(&ListParams::default()).await.unwrap().items;
        let live: Vec<&Pod> = pods.iter().filter(|pod| !is_over(pod)).collect();
        let role = |pod: &Pod| pod.labels()[plan::names::ROLE].clone();
        let asking = live.iter().filter(|pod| role(pod) == "train").count();
        if asking > QUOTA as usize {
            return asking;
        }
        for pod in live {
            let of = pod.labels()[plan::names::WORKSPACE].clone();
            let run = Run { place, name: &of };
            let started = running_since(pod);
            if role(pod) == "preflight" && ended.insert(pod.name_any()) {
                run.preflight(SMALL).await;
            } else if role(pod) == "train" && node_of(pod).is_some() && started.is_none() {
                run.runs().await;
            } else if started.is_some_and(|since| since >= TRAINING) && ended.insert(pod.name_any())
            {
                let adapter = Some(adapter.clone());
                run.end(pod, Ending::well(Termination { adapter, ..Termination::default() })).await;
            }
        }
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn running_since(pod: &Pod) -> Option<Duration> {
    let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
    let since = state.running.as_ref()?.started_at.as_ref()?;
    k8s_openapi::jiff::Timestamp::now().duration_since(since.0).try_into().ok()
}
