//! A namespace whose pods must pass the `restricted` level, with a workspace in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Config};
use oci::{Folder, Options};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::host::{Process, Signal};
use super::node::{Node, REGISTRY};

/// Longest wait for anything that takes no training.
const PATIENCE: Duration = Duration::from_mins(4);
/// The workspace's name.
const NAME: &str = "tune";

/// A namespace and clients for it.
pub(crate) struct Team {
    pub(crate) node: &'static Node,
    pub(crate) client: Client,
    pub(crate) name: &'static str,
    pub(crate) workspaces: Api<DynamicObject>,
    pub(crate) jobs: Api<Job>,
    pub(crate) pods: Api<Pod>,
    pub(crate) secrets: Api<Secret>,
}

impl Team {
    pub(crate) async fn new(node: &'static Node, name: &'static str) -> Result<Self> {
        // A second installation is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(node.kubeconfig())?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let labels = [("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned())];
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        };
        let own = Namespace { metadata, ..Namespace::default() };
        namespaces.create(&PostParams::default(), &own).await.context("no namespace")?;
        let kind = GroupVersionKind::gvk("anneal.dev", "v1alpha1", "FineTuneWorkspace");
        let kind = ApiResource::from_gvk(&kind);
        let team = Self {
            node,
            name,
            workspaces: Api::namespaced_with(client.clone(), name, &kind),
            jobs: Api::namespaced(client.clone(), name),
            pods: Api::namespaced(client.clone(), name),
            secrets: Api::namespaced(client.clone(), name),
            client,
        };
        team.tiny_model().await?;
        Ok(team)
    }

    /// A workspace that takes a second of training: two examples, three steps, a tiny model.
    pub(crate) fn workspace(&self) -> Value {
        json!({
            "apiVersion": "anneal.dev/v1alpha1",
            "kind": "FineTuneWorkspace",
            "metadata": {"name": NAME},
            "spec": {
                "baseModel": {"image": format!("{REGISTRY}/models/tiny:1")},
                "data": {"train": {"image": format!("{REGISTRY}/data/colors:1")}},
                "hyperparameters": {"maxSteps": 3, "batchSize": 2},
                "output": {"image": format!("{REGISTRY}/{}/tune", self.name)},
            }
        })
    }

    /// Applies a workspace, as `kubectl apply` does.
    pub(crate) async fn apply(&self, workspace: &Value) -> Result<()> {
        let params = PatchParams::apply("user").force();
        let name = workspace["metadata"]["name"].as_str().context("no name")?;
        self.workspaces.patch(name, &params, &Patch::Apply(workspace)).await?;
        Ok(())
    }

    /// The status once the workspace is in a phase, for the reason that its condition `Ready` gives.
    pub(crate) async fn reached(&self, phase: &str, reason: &str) -> Result<Value> {
        self.when(&format!("{phase} for {reason}"), |status| {
            status["phase"] == phase && condition(status, "Ready")["reason"] == reason
        })
        .await
    }

    /// The status once the adapter is there; ends at once when the run fails.
    pub(crate) async fn succeeded(&self) -> Result<Value> {
        let ends = |status: &Value| status["phase"] == "Succeeded" || status["phase"] == "Failed";
        let status = self.when("an end", ends).await?;
        ensure!(status["phase"] == "Succeeded", "it failed");
        Ok(status)
    }

    /// The status once something is so.
    pub(crate) async fn when(
        &self,
        what: &str,
        is_so: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Value> {
        let holds = |workspace: Option<&DynamicObject>| {
            workspace.is_some_and(|workspace| is_so(&workspace.data["status"]))
        };
        let found = until(&self.workspaces, NAME, what, holds).await?;
        Ok(found.context("it is there")?.data["status"].clone())
    }

    /// The pod of the training that runs, and is none of these.
    pub(crate) async fn training_pod(&self, but: &[&Pod]) -> Result<Pod> {
        let runs = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let is_old = but.iter().any(|other| other.metadata.uid == pod.metadata.uid);
            phase == Some("Running") && !is_old
        };
        self.pod("a pod that trains", runs).await
    }

    async fn pod(&self, what: &str, is_it: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let params = ListParams::default().labels("anneal.dev/role=train");
        let mut every = tokio::time::interval(Duration::from_millis(100));
        let end = tokio::time::Instant::now() + PATIENCE;
        while every.tick().await < end {
            if let Some(pod) = self.pods.list(&params).await?.items.into_iter().find(&is_it) {
                return Ok(pod);
            }
        }
        bail!("waited {PATIENCE:?} for {what}")
    }

    /// The training's pod and its trainer, which is held before it has done anything.
    pub(crate) async fn held(&self) -> Result<(Pod, Process)> {
        let pod = self.pod("a pod of the training", |_| true).await?;
        let trainer = Process::of(&pod).await?;
        trainer.send(Signal::STOP)?;
        Ok((pod, trainer))
    }

    /// The losses of all steps that a pod has written into its log.
    pub(crate) fn losses(&self, pod: &str) -> Result<Vec<f64>> {
        let log = self.node.kubectl(&format!("logs -n {} {pod}", self.name))?;
        let event = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            serde_json::from_str::<Value>(line["fields"]["event"].as_str()?).ok()
        };
        let steps = log.lines().filter_map(event).filter(|event| event["event"] == "step");
        Ok(steps.filter_map(|step| step["loss"].as_f64()).collect())
    }

    /// Names of the Jobs, in their order.
    pub(crate) async fn job_names(&self) -> Result<Vec<String>> {
        let jobs = self.jobs.list(&ListParams::default()).await?.items;
        Ok(jobs.into_iter().filter_map(|job| job.metadata.name).collect())
    }

    /// Deletes the workspace, and waits until nothing is left of it.
    pub(crate) async fn delete(&self) -> Result<()> {
        self.workspaces.delete(NAME, &DeleteParams::foreground()).await?;
        let is_gone = |workspace: Option<&DynamicObject>| workspace.is_none();
        until(&self.workspaces, NAME, "to be gone", is_gone).await?;
        ensure!(self.left().await?.is_empty(), "these are left: {:?}", self.left().await?);
        Ok(())
    }

    /// Everything in the namespace that was made for a workspace.
    pub(crate) async fn left(&self) -> Result<Vec<String>> {
        let ours = ListParams::default().labels("anneal.dev/workspace");
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.name);
        let jobs = self.jobs.list_metadata(&ours).await?.items.into_iter().map(|one| one.metadata);
        let pods = self.pods.list_metadata(&ours).await?.items.into_iter().map(|one| one.metadata);
        let maps = maps.list_metadata(&ours).await?.items.into_iter().map(|one| one.metadata);
        Ok(jobs.chain(pods).chain(maps).filter_map(|metadata| metadata.name).collect())
    }

    /// A login as `kubectl create secret docker-registry` makes it.
    pub(crate) async fn login(&self, secret: &str, registry: &str, password: &str) -> Result<()> {
        let config = json!({"auths": {registry: {"username": "team", "password": password}}});
        self.docker_config(secret, &config.to_string()).await
    }

    /// A secret of the right kind with any content.
    pub(crate) async fn docker_config(&self, secret: &str, config: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
        });
        let name = secret["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams::apply("user").force();
        self.secrets.patch(name, &params, &Patch::Apply(&secret)).await?;
        Ok(())
    }

    /// The model and the data of most tests, pushed once for all.
    async fn tiny_model(&self) -> Result<()> {
        static DONE: OnceCell<()> = OnceCell::const_new();
        DONE.get_or_try_init(|| async {
            let folder = tempfile::tempdir()?;
            testkit::tiny_model::write(folder.path(), 7)?;
            let image = format!("{REGISTRY}/models/tiny:1");
            push(&image, Folder { root: "models", path: folder.path() }, &plain()).await?;
            push_data(&format!("{REGISTRY}/data/colors:1"), &plain(), &colors()).await
        })
        .await
        .copied()
    }

    /// Deletes the namespace, without waiting for it.
    pub(crate) async fn leave(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// What there is to see of a test that failed.
    pub(crate) fn explain(&self) -> String {
        let name = self.name;
        [
            format!("get ftw,ms -n {name} -o yaml"),
            format!("get jobs,pods -n {name} -o wide"),
            format!("describe pods -n {name}"),
            format!("logs -n {name} -l app.kubernetes.io/managed-by=anneal --tail 30 --prefix"),
            "logs -n anneal-system -l app.kubernetes.io/name=anneal-operator --tail 60".to_owned(),
        ]
        .map(|line| self.node.kubectl(&line).unwrap_or_else(|error| format!("{error:#}")))
        .join("\n")
    }
}

/// The object once a condition holds of it. A condition may also ask for its absence.
pub(crate) async fn until<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    condition: impl Condition<K>,
) -> Result<Option<K>>
where
    K: Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + kube::Resource + 'static,
{
    let wait = await_condition(api.clone(), name, condition);
    let found = tokio::time::timeout(PATIENCE, wait).await;
    let found = found.with_context(|| format!("waited {PATIENCE:?} for `{name}` and {what}"))?;
    found.with_context(|| format!("cannot watch `{name}`"))
}

/// One of a status's conditions.
pub(crate) fn condition<'a>(status: &'a Value, type_: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|one| one["type"] == type_).unwrap_or(&Value::Null)
}

/// The registries of the node are spoken to over http.
pub(crate) fn plain() -> Options {
    Options { plain_http: true, ..Options::default() }
}

/// Puts a data file into an image of a registry.
pub(crate) async fn push_data(image: &str, options: &Options, text: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("train.jsonl"), text)?;
    push(image, Folder { root: "data", path: folder.path() }, options).await
}

/// Puts a folder into an image of a registry.
pub(crate) async fn push(image: &str, folder: Folder<'_>, options: &Options) -> Result<()> {
    let target = image.parse()?;
    let packed = oci::image_from_dirs(&[folder], &BTreeMap::new())?;
    oci::push::push(&packed, &target, options).await.with_context(|| format!("push {image}"))?;
    Ok(())
}

/// Examples of 1,500 tokens, so that a step takes time and memory.
pub(crate) fn long_examples(count: u32) -> String {
    let words = "red green blue ".repeat(50);
    let line =
        |number| format!("{{\"prompt\": \"{number} {words}\", \"completion\": \"{words}\"}}\n");
    (0..count).map(line).collect()
}

/// Two examples.
pub(crate) fn colors() -> String {
    ["red", "blue"]
        .map(|color| {
            format!("{{\"prompt\": \"Which color? {color}\", \"completion\": \"{color}\"}}\n")
        })
        .concat()
}

/// A folder with Docker's configuration, for our own programs.
pub(crate) fn docker_folder(folder: &Path, registry: &str, password: &str) -> Result<()> {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("team:{password}"));
    let config = json!({"auths": {registry: {"auth": auth}}});
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), config.to_string())?;
    Ok(())
}

/// How our own crate speaks to a registry with a login.
pub(crate) fn docker_options(folder: &Path, registry: &str, password: &str) -> Result<Options> {
    docker_folder(folder, registry, password)?;
    Ok(Options { docker_config: Some(folder.to_owned()), ..plain() })
}
