//! What the tests against a real API server share: a namespace of their own, the operator as a process
//! with exactly the rights that it asks for, and the part of a kubelet: saying how a pod stands.

mod cut;
pub mod karpenter;
pub mod kueue;
pub mod load;
mod node;
mod operator;
mod wait;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use api::FineTuneWorkspace;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use serde::Deserialize as _;
use testkit::cluster::{ControlPlane, User, control_plane};
use tokio::sync::OnceCell;

pub use cut::Cut;
pub use node::Ending;
pub use operator::Operator;
pub use wait::{is_established, until};

/// A namespace in which pods must pass the `restricted` level, and clients for it.
#[expect(missing_debug_implementations, reason = "a client has none")]
pub struct Place {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
    pub workspaces: Api<FineTuneWorkspace>,
    pub jobs: Api<Job>,
    pub pods: Api<Pod>,
    pub config_maps: Api<ConfigMap>,
    pub secrets: Api<Secret>,
}

/// The smallest workspace that a cluster takes.
pub const WORKSPACE: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata: {name: reviews}
spec:
  baseModel: {image: \"registry.example.com/models/smollm2:135m\"}
  data: {train: {image: \"registry.example.com/data/reviews:1\"}}
  output: {image: registry.example.com/team/reviews}
";

impl Place {
    /// A new namespace. The first one installs the definition and the operator's roles.
    pub async fn new(name: &str) -> Result<Self> {
        let plane =
            tokio::task::spawn_blocking(control_plane).await.context("no control plane")??;
        install(&client(plane, User::Admin).await?).await?;
        Self::on(plane, name).await
    }

    /// A new namespace in a control plane of one's own, in which nothing is installed.
    pub async fn alone(name: &str) -> Result<Self> {
        let plane = tokio::task::spawn_blocking(ControlPlane::start).await;
        // It ends with this process, as the shared one does.
        Self::on(Box::leak(Box::new(plane.context("no control plane")??)), name).await
    }

    async fn on(plane: &'static ControlPlane, name: &str) -> Result<Self> {
        let client = client(plane, User::Admin).await?;
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(BTreeMap::from([(
                    "pod-security.kubernetes.io/enforce".to_owned(),
                    "restricted".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Self {
            workspaces: Api::namespaced(client.clone(), name),
            jobs: Api::namespaced(client.clone(), name),
            pods: Api::namespaced(client.clone(), name),
            config_maps: Api::namespaced(client.clone(), name),
            secrets: Api::namespaced(client.clone(), name),
            namespace: name.to_owned(),
            plane,
            client,
        })
    }

    /// Applies a workspace, as `kubectl apply` does.
    pub async fn apply(&self, yaml: &str) -> Result<FineTuneWorkspace> {
        let workspace: serde_json::Value = serde_yaml::from_str(yaml)?;
        let name = workspace["metadata"]["name"].as_str().context("it has no name")?.to_owned();
        let params = PatchParams::apply("user").force();
        Ok(self.workspaces.patch(&name, &params, &Patch::Apply(&workspace)).await?)
    }

    /// Everything in the namespace that was made for a workspace.
    pub async fn left(&self) -> Result<Vec<String>> {
        let ours = ListParams::default().labels(plan::names::WORKSPACE);
        let mut left = Vec::new();
        for job in self.jobs.list(&ours).await? {
            left.push(format!("job {}", job.metadata.name.unwrap_or_default()));
        }
        for pod in self.pods.list(&ours).await? {
            left.push(format!("pod {}", pod.metadata.name.unwrap_or_default()));
        }
        for map in self.config_maps.list(&ours).await? {
            left.push(format!("config map {}", map.metadata.name.unwrap_or_default()));
        }
        Ok(left)
    }
}

/// A client that speaks as a user.
pub async fn client(plane: &ControlPlane, user: User) -> Result<Client> {
    // A second installation is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig(user))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The definition and the roles, as `deploy` has them; once for all tests.
async fn install(client: &Client) -> Result<()> {
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_try_init(|| async {
        let roles = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/operator.yaml");
        install_these(client, &std::fs::read_to_string(roles)?, &api::crd_yaml()).await
    })
    .await?;
    Ok(())
}

/// These roles, this definition of a workspace, and what else the operator is at home with.
pub async fn install_these(client: &Client, roles: &str, definition: &str) -> Result<()> {
    let own = "{apiVersion: v1, kind: Namespace, metadata: {name: anneal-system}}";
    apply_all(client, own).await?;
    apply_all(client, roles).await?;
    apply_all(client, definition).await?;
    apply_all(client, &api::model_server_crd_yaml()).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in ["finetuneworkspaces.anneal.dev", "modelservers.anneal.dev"] {
        until(&definitions, name, is_established).await?;
    }
    Ok(())
}

/// A kind by its names.
pub fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(group, version, kind))
}

/// Applies every document of a YAML text.
pub async fn apply_all(client: &Client, text: &str) -> Result<()> {
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_yaml::Value::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject = serde_yaml::from_value(value)?;
        let types = object.types.clone().context("a document without a kind")?;
        let (group, version) =
            types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = resource(group, version, &types.kind);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object.metadata.name.clone().context("a document without a name")?;
        let params = PatchParams::apply("install").force();
        api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(|| name.clone())?;
    }
    Ok(())
}
