//! Real Kueue beside the control plane, for namespaces that carry a label. Its own manifests are applied,
//! with another address of its webhooks: that of the process.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use testkit::cluster::companion::Companion;
use testkit::cluster::{User, free_port, tools};
use tokio::sync::OnceCell;

use crate::{Place, apply_all, is_established, resource, until};

const HOME: &str = "kueue-system";
const SERVICE: &str = "kueue-webhook-service";
const CERTIFICATE: &str = "kueue-webhook-server-cert";
/// Label of namespaces whose Jobs it looks at.
const MANAGED: &str = "tests/kueue";
/// Definitions of which it converts one version into another.
const CONVERTED: [&str; 5] =
    ["localqueues", "clusterqueues", "workloads", "cohorts", "multikueueclusters"];

/// Starts it the first time, and lets it look at this namespace.
pub async fn kueue(place: &Place) -> Result<()> {
    static SHARED: OnceCell<Companion> = OnceCell::const_new();
    SHARED.get_or_try_init(|| start(place)).await?;
    let label = Patch::Merge(json!({"metadata": {"labels": {MANAGED: "yes"}}}));
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces.patch(&place.namespace, &PatchParams::default(), &label).await?;
    Ok(())
}

async fn start(place: &Place) -> Result<Companion> {
    let built = tokio::task::spawn_blocking(|| {
        Ok::<_, anyhow::Error>((
            tools::program("kueue")?,
            tools::module("kueue", "sigs.k8s.io/kueue")?,
        ))
    });
    let (program, module) = built.await??;
    let folder = place.plane.folder().join("kueue");
    std::fs::create_dir_all(&folder)?;
    let port = free_port()?;
    install(&place.client, &module.join("config/components"), port).await?;
    let config = folder.join("config.yaml");
    std::fs::write(&config, configuration(&folder, port).to_string())?;
    let admin = place.plane.kubeconfig(User::Admin);
    let argument = format!("--config={}", config.display());
    let arguments = [&argument, "--feature-gates=VisibilityOnDemand=false", "--zap-log-level=2"];
    let running = Companion::start(&program, &arguments, &[("KUBECONFIG", &admin)], &folder)?;
    mount(&place.client, &folder).await?;
    answers(&place.client, &running).await?;
    Ok(running)
}

fn configuration(folder: &Path, port: u16) -> Value {
    json!({
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": HOME,
        "health": {"healthProbeBindAddress": "127.0.0.1:0"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": folder},
        "leaderElection": {"leaderElect": false},
        "internalCertManagement": {"enable": true, "webhookServiceName": SERVICE,
            "webhookSecretName": CERTIFICATE},
        "integrations": {"frameworks": ["batch/job"]},
        "managedJobsNamespaceSelector": {"matchLabels": {MANAGED: "yes"}},
    })
}

/// Its definitions and webhooks, from its module.
async fn install(client: &Client, components: &Path, port: u16) -> Result<()> {
    let home = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {HOME}}}}}");
    apply_all(client, &home).await?;
    // The API server finds the process by the service, as it finds a pod.
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": HOME},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": port}]}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": CERTIFICATE, "namespace": HOME}});
    apply_all(client, &service.to_string()).await?;
    apply_all(client, &secret.to_string()).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for entry in std::fs::read_dir(components.join("crd/bases"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let mut definition: Value = serde_yaml::from_str(&text)?;
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
        if CONVERTED.contains(&plural) {
            let at = json!({"namespace": HOME, "name": SERVICE, "path": "/convert", "port": port});
            definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook":
                {"clientConfig": {"service": at}, "conversionReviewVersions": ["v1"]}});
        }
        apply_all(client, &definition.to_string()).await?;
        let name =
            definition["metadata"]["name"].as_str().context("a definition without a name")?;
        until(&definitions, name, is_established).await?;
    }
    let webhooks = std::fs::read_to_string(components.join("webhook/manifests.yaml"))?;
    for document in webhooks.split("\n---\n") {
        let value: Value = serde_yaml::from_str(document)?;
        if !value.is_null() {
            apply_all(client, &webhook(value, port).to_string()).await?;
        }
    }
    Ok(())
}

/// A webhook configuration with what this process answers of it.
fn webhook(mut value: Value, port: u16) -> Value {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    value["metadata"]["name"] = json!(format!("kueue-{name}"));
    let Some(all) = value["webhooks"].as_array_mut() else { return value };
    let group =
        |one: &Value| one["rules"][0]["apiGroups"][0].as_str().unwrap_or_default().to_owned();
    all.retain(|one| matches!(group(one).as_str(), "batch" | "kueue.x-k8s.io"));
    for one in all {
        let at = &mut one["clientConfig"]["service"];
        (at["namespace"], at["name"], at["port"]) = (json!(HOME), json!(SERVICE), json!(port));
        if group(one) == "batch" {
            one["namespaceSelector"] = json!({"matchLabels": {MANAGED: "yes"}});
        }
    }
    value
}

/// A kubelet's part: the secret that it fills is there as files.
async fn mount(client: &Client, folder: &Path) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), HOME);
    let is_filled = |secret: Option<&Secret>| {
        secret
            .and_then(|secret| secret.data.as_ref())
            .is_some_and(|data| data.get("tls.crt").is_some_and(|text| !text.0.is_empty()))
    };
    let secret = until(&secrets, CERTIFICATE, is_filled).await?.context("no certificate")?;
    for (name, bytes) in secret.data.unwrap_or_default() {
        std::fs::write(folder.join(name), bytes.0)?;
    }
    Ok(())
}

/// Waits until the webhooks answer, by asking for something that is refused without them.
async fn answers(client: &Client, running: &Companion) -> Result<()> {
    let flavor = json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor",
        "metadata": {"name": "gpus"}, "spec": {}});
    let mut every = tokio::time::interval(std::time::Duration::from_millis(300));
    for attempt in 0..300 {
        every.tick().await;
        let answer = apply_all(client, &flavor.to_string()).await;
        if answer.is_ok() {
            return Ok(());
        }
        ensure!(attempt < 299, "Kueue does not answer ({answer:?}):\n{}", running.log());
    }
    Ok(())
}

/// A queue of a namespace with so many GPUs; a run of higher priority may take them from one of lower.
pub async fn queue(place: &Place, name: &str, gpus: u32) -> Result<()> {
    let plenty = |resource: &str, quota: String| json!({"name": resource, "nominalQuota": quota});
    let resources = [
        plenty("cpu", "1000".to_owned()),
        plenty("memory", "10Ti".to_owned()),
        plenty("nvidia.com/gpu", gpus.to_string()),
    ];
    let cluster = format!("{}-{name}", place.namespace);
    let covered = ["cpu", "memory", "nvidia.com/gpu"];
    let all = json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue",
    "metadata": {"name": cluster},
    "spec": {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": covered,
            "flavors": [{"name": "gpus", "resources": resources}]}],
    }});
    let local = json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue",
        "metadata": {"name": name, "namespace": place.namespace},
        "spec": {"clusterQueue": cluster}});
    apply_all(&place.client, &all.to_string()).await?;
    apply_all(&place.client, &local.to_string()).await
}

/// The workloads of a namespace: one for each Job that is in a queue.
pub async fn workloads(place: &Place) -> Result<Vec<DynamicObject>> {
    let resource = resource("kueue.x-k8s.io", "v1beta2", "Workload");
    let api: Api<DynamicObject> =
        Api::namespaced_with(place.client.clone(), &place.namespace, &resource);
    let mut all = api.list(&ListParams::default()).await?.items;
    all.sort_by_key(ResourceExt::name_any);
    Ok(all)
}
