//! No node is lost sight of, wherever the operator is cut off.

use api::Termination;
use api::workspace::Phase;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::cluster::tools::needs_control_plane;
use testkit::registry::{Registry, needs_go};
use tests_cluster::{Cut, Ending, until};

use crate::support::{Run, SMALL, Stage, output, push, workspace};

/// The operator is ended after every single write, before it learns of its success: the run succeeds on a
/// node of its own, the pool goes, and so does that of a workspace that is deleted while it trains.
#[tokio::test]
async fn ended_after_every_write() {
    let name = "nodes_ended_after_every_write";
    if !needs_control_plane(name) || !needs_go(name) {
        return;
    }
    let registry = Registry::open().unwrap();
    let adapter = push(&registry).await;
    let mut stage = Stage::new("cut").await;
    stage.operator.kill().unwrap();
    let cut = Cut::new(&stage.place).await.unwrap();
    let (run, karpenter) = (stage.run("reviews"), stage.karpenter);
    let lives = async {
        let mut lives = 0;
        loop {
            cut.allow(1);
            let mut operator = karpenter.operator_by(&stage.place, &cut.kubeconfig()).unwrap();
            cut.spent().await;
            operator.kill().unwrap();
            lives += 1;
            assert!(lives < 200, "the operator writes without end");
        }
    };
    let story = async {
        let report = Termination { adapter: Some(adapter), ..Termination::default() };
        succeeds(run, &registry, report).await;
        ends_by_deletion(run, &registry).await;
    };
    tokio::select! {
        () = story => {}
        () = lives => {}
    }
}

async fn succeeds(run: Run<'_>, registry: &Registry, report: Termination) {
    run.place.apply(&workspace(run.name, "", &output(Some(registry)))).await.unwrap();
    run.preflight(SMALL).await;
    let pod = run.runs().await;
    run.reached(Phase::Training).await;
    let pool = run.pool().await;
    run.end(&pod, Ending::well(report)).await;
    run.reached(Phase::Succeeded).await;
    run.released(&pool).await;
    let is_let_go = |workspace: Option<&api::FineTuneWorkspace>| {
        workspace.is_some_and(|workspace| workspace.finalizers().is_empty())
    };
    until(&run.place.workspaces, run.name, is_let_go).await.unwrap();
}

async fn ends_by_deletion(run: Run<'_>, registry: &Registry) {
    let more = format!("{}\n  hyperparameters: {{epochs: 3}}", output(Some(registry)));
    run.place.apply(&workspace(run.name, "", &more)).await.unwrap();
    run.reached(Phase::Preflight).await;
    run.preflight(SMALL).await;
    run.runs().await;
    run.reached(Phase::Training).await;
    let pool = run.pool().await;
    run.place.workspaces.delete(run.name, &DeleteParams::default()).await.unwrap();
    run.released(&pool).await;
    until(&run.place.workspaces, run.name, |one: Option<&_>| one.is_none()).await.unwrap();
}

/// A finalizer that was taken away by hand while no operator ran: the next one takes what is left.
#[tokio::test]
async fn what_is_left_is_taken_at_the_start() {
    if !needs_control_plane("what_is_left_is_taken_at_the_start") {
        return;
    }
    let mut stage = Stage::new("orphans").await;
    let place = &stage.place;
    let run = stage.run("reviews");
    place.apply(&workspace("reviews", "", &output(None))).await.unwrap();
    run.preflight(SMALL).await;
    run.runs().await;
    let pool = run.pool().await;
    stage.operator.kill().unwrap();
    let run = stage.run("reviews");
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let workspaces = &stage.place.workspaces;
    workspaces.patch("reviews", &PatchParams::default(), &none).await.unwrap();
    workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
    until(workspaces, "reviews", |one: Option<&_>| one.is_none()).await.unwrap();
    assert!(run.capacity(&pool).await.pool.is_some());
    let _operator = stage.karpenter.operator(&stage.place).unwrap();
    run.released(&pool).await;
}
