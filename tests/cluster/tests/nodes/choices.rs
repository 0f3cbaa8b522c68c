//! Which nodes a run gets: by its size, by what there is, and after a Spot node was taken away.

use api::workspace::{CapacityType, Phase};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::karpenter::{ZONE, ZONE_WITHOUT_FIRST, kind};

use crate::shapes;
use crate::support::{SMALL, Stage, label, node_of, output, ready, workspace};

const TYPE: &str = "node.kubernetes.io/instance-type";
const CAPACITY: &str = "karpenter.sh/capacity-type";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// As long as a name may be.
const LONGEST: &str = "fifty-characters-are-the-most-that-a-name-may-have";

/// Models of five sizes at once, one of them with the longest name: what each needs is preflight's own
/// estimate, each has a pool of its own, and its pod is on a node of that pool of the smallest type.
#[tokio::test]
async fn the_right_type_for_each_size() {
    if !needs_control_plane("the_right_type_for_each_size") {
        return;
    }
    let stage = Stage::new("sizes").await;
    let sizes = [
        ("qwen-0.6b", 2000, "one", "nvidia-a10g-1x"),
        ("llama-8b", 2000, LONGEST, "nvidia-a10g-1x"),
        ("llama-8b", 32_000, "three", "nvidia-l40s-1x"),
        ("llama-3b-all", 2000, "four", "nvidia-a100-80gb-1x"),
        ("llama-8b-all", 2000, "five", "nvidia-h200-1x"),
    ];
    let mut pools = Vec::new();
    for (model, longest, name, _) in sizes {
        stage.place.apply(&workspace(name, "", &output(None))).await.unwrap();
        stage.run(name).preflight(shapes::least(model, longest)).await;
    }
    for (model, _, name, expected) in sizes {
        let run = stage.run(name);
        let pod = run.bound().await;
        let pool = run.pool().await;
        let capacity = run.capacity(&pool).await;
        assert_eq!(label(&capacity, TYPE), expected, "{model}");
        assert_eq!(label(&capacity, CAPACITY), "on-demand", "{model}");
        assert_eq!(node_of(&pod).unwrap(), capacity.nodes[0].name_any(), "{model}");
        let status = run.reached(Phase::Provisioning).await.capacity.unwrap();
        assert_eq!(status.pool.as_ref(), Some(&pool));
        assert!(status.reason.unwrap().starts_with("the smallest that holds the run"), "{model}");
        pools.push(pool);
    }
    assert!(pools.iter().any(|pool| pool.len() == 63), "{pools:?}");
    pools.sort();
    pools.dedup();
    assert_eq!(pools.len(), sizes.len(), "a pool is shared: {pools:?}");
    for (_, _, name, _) in sizes {
        stage.place.workspaces.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for pool in &pools {
        stage.run("all").released(pool).await;
    }
}

/// The smallest product cannot be had in the zone: the next one is taken, and the status names both.
#[tokio::test]
async fn the_second_choice_where_the_first_cannot_be_had() {
    if !needs_control_plane("the_second_choice_where_the_first_cannot_be_had") {
        return;
    }
    let stage = Stage::new("second").await;
    let run = stage.run("reviews");
    let zones = format!("zones: [{ZONE_WITHOUT_FIRST}]");
    stage.place.apply(&workspace("reviews", &zones, &output(None))).await.unwrap();
    run.preflight(SMALL).await;
    run.runs().await;
    let pool = run.pool().await;
    let capacity = run.capacity(&pool).await;
    assert_eq!(label(&capacity, TYPE), "nvidia-l4-1x");
    assert_eq!(label(&capacity, ZONE_LABEL), ZONE_WITHOUT_FIRST);
    let status = run.until(|status| {
        let uses = status.capacity.as_ref().map(|all| &all.uses);
        uses.is_some_and(|uses| uses.iter().any(|one| one.instance_type.is_some()))
    });
    let capacity = status.await.capacity.unwrap();
    assert_eq!(capacity.product.as_deref(), Some("NVIDIA A10G"));
    assert_eq!(capacity.runners_up[0], "NVIDIA L4");
    assert_eq!(capacity.uses[0].instance_type.as_deref(), Some("nvidia-l4-1x"));
    stage.place.workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
    run.released(&pool).await;
}

/// A Spot node is taken away under the pod: that is no failure, and the next pod runs on another node. After
/// as many interruptions as it may have, the run is on a node on demand.
#[tokio::test]
async fn a_spot_node_is_taken_away() {
    if !needs_control_plane("a_spot_node_is_taken_away") {
        return;
    }
    let stage = Stage::new("spot").await;
    let run = stage.run("reviews");
    let nodes = format!("capacityType: SpotThenOnDemand, maxInterruptions: 2, zones: [{ZONE}]");
    let more = format!("{}\n  limits: {{retries: 0}}", output(None));
    stage.place.apply(&workspace("reviews", &nodes, &more)).await.unwrap();
    run.preflight(SMALL).await;
    let mut before = String::new();
    for interruptions in 0..=2 {
        let pod = run.runs().await;
        let pool = run.pool().await;
        let capacity = run.capacity(&pool).await;
        let mut claims = capacity.claims.clone();
        claims.retain(|claim| claim.metadata.deletion_timestamp.is_none());
        assert_eq!(claims.len(), 1, "{capacity:?}");
        let is_on_demand = claims[0].labels()[CAPACITY] == "on-demand";
        assert_eq!(is_on_demand, interruptions == 2, "{claims:?}");
        let node = node_of(&pod).unwrap().to_owned();
        assert_ne!(node, before);
        before = node;
        let status = run.until(|status| {
            let count = status.capacity.as_ref().map(|all| all.interruptions);
            status.phase == Some(Phase::Training) && count == Some(interruptions)
        });
        let status = status.await.capacity.unwrap();
        if is_on_demand {
            assert_eq!(status.capacity_type, Some(CapacityType::OnDemand));
            stage.place.workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
            run.released(&pool).await;
            return;
        }
        let api = kind(&stage.place.client, "NodeClaim");
        api.delete(&claims[0].name_any(), &DeleteParams::default()).await.unwrap();
        let gone = |found: Option<&_>| found.is_none();
        tests_cluster::until(&stage.place.pods, &pod.name_any(), gone).await.unwrap();
    }
}

/// A run that no product holds gets no node, and the status says what is short and what to change.
#[tokio::test]
async fn too_large_for_any_product() {
    if !needs_control_plane("too_large_for_any_product") {
        return;
    }
    let stage = Stage::new("too-large").await;
    let run = stage.run("reviews");
    stage.place.apply(&workspace("reviews", "", &output(None))).await.unwrap();
    run.preflight(200 << 30).await;
    let status = run.reached(Phase::Rejected).await;
    let (reason, message) = ready(&status);
    assert_eq!(reason, "NoGpuFits");
    assert!(message.contains("are short; next: "), "{message}");
    assert!(stage.place.pool_of("reviews").await.unwrap().is_none());
}
