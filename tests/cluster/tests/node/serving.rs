//! Two replicas of a model server on the real node: adapters come while a client streams, from a workspace and
//! from a tag, are replaced, rolled back and refused; a replica is lost, a registry goes; nothing is left.

mod client;
mod variants;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use testkit::registry::Registry;

use crate::support::{Company, REGISTRY, Team, builds, condition, on_node, run, until};
use client::{Client, answers};
use variants::Variants;

const NAME: &str = "smollm2";
/// From the push of an adapter to its first answer, by every replica.
const SECONDS: Duration = Duration::from_secs(10);

const WORKSPACE: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata: {name: tune}
spec:
  baseModel: {image: \"10.99.0.1:5000/models/smollm2:1\"}
  data: {train: {image: \"10.99.0.1:5000/data/colors:1\"}}
  hyperparameters: {maxSteps: 1, batchSize: 1}
  output: {image: \"10.99.0.1:5000/serving/tune\"}
";

/// A server in a namespace of its own.
struct Served<'a> {
    team: &'a Team,
    servers: Api<DynamicObject>,
}

impl<'a> Served<'a> {
    fn new(team: &'a Team) -> Self {
        let kind = GroupVersionKind::gvk("anneal.dev", "v1alpha1", "ModelServer");
        let kind = ApiResource::from_gvk(&kind);
        Self { team, servers: Api::namespaced_with(team.client.clone(), team.name, &kind) }
    }

    async fn apply(&self, adapters: Value) -> Result<()> {
        let server = json!({
            "apiVersion": "anneal.dev/v1alpha1", "kind": "ModelServer", "metadata": {"name": NAME},
            "spec": {
                "baseModel": {"image": format!("{REGISTRY}/models/smollm2:1")},
                "replicas": 2,
                "limits": {"cacheMemory": "64Mi", "context": 512},
                "adapters": adapters,
            },
        });
        let params = PatchParams::apply("user").force();
        self.servers.patch(NAME, &params, &Patch::Apply(&server)).await?;
        Ok(())
    }

    /// The status once something is so.
    async fn when(
        &self,
        what: &str,
        is_so: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Value> {
        let holds = |server: Option<&DynamicObject>| {
            server.is_some_and(|server| {
                let status = &server.data["status"];
                status["observedGeneration"].as_i64() == server.metadata.generation && is_so(status)
            })
        };
        let found = until(&self.servers, NAME, what, holds).await?;
        Ok(found.context("it is there")?.data["status"].clone())
    }

    async fn ready(&self) -> Result<Value> {
        self.when("ready", |status| condition(status, "Ready")["status"] == "True").await
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        let ours = ListParams::default().labels(&format!("anneal.dev/server={NAME}"));
        let mut pods = self.team.pods.list(&ours).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    async fn addresses(&self) -> Result<Vec<String>> {
        let pods = self.pods().await?;
        let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.clone();
        Ok(pods.iter().filter_map(address).collect())
    }

    /// UIDs and restarts of the pods.
    async fn lives(&self) -> Result<Vec<(Option<String>, i32)>> {
        let mut lives: Vec<_> = self.pods().await?.iter().map(life).collect();
        lives.sort();
        Ok(lives)
    }

    /// Waits until every replica answers with an adapter of a digest; how long that took since `start`.
    async fn answered(&self, adapter: &str, digest: &str, start: Instant) -> Result<Duration> {
        let addresses = self.addresses().await?;
        let mut every = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..1200 {
            every.tick().await;
            if addresses.iter().all(|pod| answers(pod, adapter, digest)) {
                return Ok(start.elapsed());
            }
        }
        anyhow::bail!("not every replica answers with `{adapter}` of {digest}")
    }
}

fn life(pod: &Pod) -> (Option<String>, i32) {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let restarts = containers.into_iter().flatten().map(|one| one.restart_count).sum();
    (pod.metadata.uid.clone(), restarts)
}

fn anneal(arguments: &[&str]) -> Result<String> {
    run(Command::new(builds().join("anneal")).args(arguments).arg("--plain-http"))
}

/// The digest that a tag stands for, once there is one.
async fn pushed(image: &str) -> Result<String> {
    let target = image.parse()?;
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..3000 {
        every.tick().await;
        let options = oci::Options { attempts: 1, ..crate::support::plain() };
        if let Ok(digest) = oci::pull::resolve(&target, &options).await {
            return Ok(digest);
        }
    }
    anyhow::bail!("nothing came to {image}")
}

/// Pushes an adapter's folder, and gives its digest.
async fn push(folder: &Path, image: &str) -> Result<String> {
    anneal(&["push", &folder.display().to_string(), image])?;
    pushed(image).await
}

#[test]
fn adapters_come_and_go_while_a_client_streams() {
    // Alone, since it is also about time.
    on_node("serving", Company::None, async |team| {
        let served = Served::new(team);
        let model = testkit::smollm2()?;
        let base = format!("{REGISTRY}/models/smollm2:1");
        anneal(&["push", &model.display().to_string(), &base])?;
        served.apply(json!([])).await?;
        let status = served.ready().await?;
        ensure!(status["summary"] == "0/0" && status["readyReplicas"] == 2, "{status:#}");
        let lives = served.lives().await?;
        let client = Client::start(&served.addresses().await?);

        let first = from_a_workspace(&served).await?;
        let mut registry = Registry::open_at("10.99.0.1", 5005)?;
        let variants = Variants::new(&first)?;
        from_a_tag(&served, &registry.host(), &variants).await?;
        ensure!(served.lives().await? == lives, "pods were replaced or restarted");
        client.finish()?;

        a_lost_replica_comes_back(&served).await?;
        registry.stop()?;
        let told = |status: &Value| status["adapters"][1]["reason"].is_string();
        let status = served.when("a registry that is told of", told).await?;
        ensure!(status["summary"] == "2/2", "{status:#}");
        ensure!(condition(&status, "Ready")["status"] == "True", "{status:#}");
        nothing_is_left(&served).await
    });
}

/// A workspace is applied, and what it publishes is served by both within seconds.
async fn from_a_workspace(served: &Served<'_>) -> Result<String> {
    let rows = json!([{"name": "tuned", "workspace": "tune"}]);
    served.apply(rows).await?;
    served
        .when("an adapter that is missing", |status| {
            condition(status, "Ready")["reason"] == "AdapterMissing"
        })
        .await?;
    let workspace: Value = serde_yaml::from_str(WORKSPACE)?;
    served.team.apply(&workspace).await?;
    let run = served.team.when("a revision", |status| status["revision"].is_string()).await?;
    let revision = run["revision"].as_str().unwrap_or_default();
    let image = format!("{REGISTRY}/serving/tune:{revision}");
    let digest = pushed(&image).await?;
    let took = served.answered("tuned", &digest, Instant::now()).await?;
    ensure!(took < SECONDS, "from the push to the answers of both it took {took:?}");
    let status = served.ready().await?;
    ensure!(status["adapters"][0]["digest"] == digest, "{status:#}");
    ensure!(status["adapters"][0]["replicas"] == "2/2", "{status:#}");
    Ok(image)
}

/// A tag is followed, replaced and rolled back; what is poisoned is refused, and the old one goes on.
async fn from_a_tag(served: &Served<'_>, host: &str, variants: &Variants) -> Result<()> {
    let image = format!("{host}/serving/other:v1");
    let rows = |image: &str| json!([{"name": "tuned", "workspace": "tune"}, {"name": "other", "image": image}]);
    let first = push(&variants.plain, &image).await?;
    served.apply(rows(&image)).await?;
    served.answered("other", &first, Instant::now()).await?;
    served.ready().await?;

    let second = push(&variants.stronger, &image).await?;
    let took = served.answered("other", &second, Instant::now()).await?;
    ensure!(took < SECONDS, "from the push to the answers of both it took {took:?}");

    push(&variants.poisoned, &image).await?;
    let refused = |status: &Value| condition(status, "Ready")["reason"] == "AdapterRefused";
    let status = served.when("a poisoned adapter that is refused", refused).await?;
    let row = &status["adapters"][1];
    ensure!(row["replicas"] == "0/2" && row["reason"].is_string(), "{status:#}");
    served.answered("other", &second, Instant::now()).await?;

    // Rolling back is naming the older one.
    served.apply(rows(&format!("{host}/serving/other@{first}"))).await?;
    served.answered("other", &first, Instant::now()).await?;
    served.ready().await?;
    // And on: the tag again, with what is good.
    push(&variants.stronger, &image).await?;
    served.apply(rows(&image)).await?;
    served.answered("other", &second, Instant::now()).await?;
    served.ready().await.map(drop)
}

async fn a_lost_replica_comes_back(served: &Served<'_>) -> Result<()> {
    let before = served.lives().await?;
    let pods = served.pods().await?;
    let name = pods[0].metadata.name.as_deref().context("no name")?;
    served.team.node.kubectl(&format!("delete pod -n serving {name} --grace-period=1"))?;
    let away = |status: &Value| condition(status, "Ready")["status"] == "False";
    served.when("a replica that is away", away).await?;
    let status = served.ready().await?;
    ensure!(status["summary"] == "2/2", "{status:#}");
    ensure!(served.lives().await? != before, "it is the same pod");
    for row in [0, 1] {
        let adapter = &status["adapters"][row];
        let (name, digest) = (adapter["name"].as_str(), adapter["digest"].as_str());
        let (name, digest) = name.zip(digest).with_context(|| format!("{status:#}"))?;
        served.answered(name, digest, Instant::now()).await?;
    }
    Ok(())
}

async fn nothing_is_left(served: &Served<'_>) -> Result<()> {
    let kubectl = |line: &str| served.team.node.kubectl(line);
    kubectl("delete ms -n serving smollm2 --cascade=foreground --timeout=120s")?;
    let kinds =
        "deployments,replicasets,pods,services,configmaps,networkpolicies,poddisruptionbudgets";
    let left = kubectl(&format!("get {kinds} -n serving -l anneal.dev/server -o name"))?;
    ensure!(left.trim().is_empty(), "these are left: {left}");
    served.team.delete().await
}
