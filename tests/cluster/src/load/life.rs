//! Whole lives, from apply to a published adapter to deletion: what they cost in requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::workspace::{AdapterStatus, Phase};
use api::{FineTuneWorkspace, Termination};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use testkit::registry::Registry;

use super::{Audit, Load, Requests, kubelet, workspace};
use crate::until;

/// The namespace of these lives.
const NAMESPACE: &str = "life";

impl Load {
    /// Lets so many workspaces live, one after another; all that was asked of the API server for them.
    ///
    /// Their names start with `life`; the registry holds what they say to have published.
    pub async fn lives(&self, count: usize, registry: &Registry) -> Result<Requests> {
        self.namespace(NAMESPACE).await?;
        let adapter = push(registry).await?;
        let audit = Audit::from_now(self.plane)?;
        let api: Api<FineTuneWorkspace> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        for number in 0..count {
            let name = format!("life-{number}");
            let output = format!("\"{}/team/reviews\"", registry.host());
            api.create(&PostParams::default(), &workspace(&name, &output)?).await?;
            until(&api, &name, is_in(Phase::Training)).await?;
            let of = format!("{}={name},{}=train", plan::names::WORKSPACE, plan::names::ROLE);
            let pod = pods.list(&ListParams::default().labels(&of)).await?.items.pop();
            let report = Termination { adapter: Some(adapter.clone()), ..Termination::default() };
            kubelet::end_well(&self.client, &pod.context("no pod trains")?, &report).await?;
            until(&api, &name, is_in(Phase::Succeeded)).await?;
            api.delete(&name, &DeleteParams::default()).await?;
            until(&api, &name, |found: Option<&FineTuneWorkspace>| found.is_none()).await?;
        }
        self.until_gone(&pods).await?;
        self.until_quiet(Duration::from_secs(3)).await?;
        audit.requests_in(NAMESPACE)
    }

    async fn until_gone(&self, pods: &Api<Pod>) -> Result<()> {
        let start = Instant::now();
        let mut every = tokio::time::interval(Duration::from_millis(200));
        while !pods.list(&ListParams::default()).await?.items.is_empty() {
            every.tick().await;
            ensure!(start.elapsed() < Duration::from_mins(1), "pods are left");
        }
        Ok(())
    }
}

fn is_in(phase: Phase) -> impl Fn(Option<&FineTuneWorkspace>) -> bool {
    move |workspace| {
        workspace
            .and_then(|workspace| workspace.status.as_ref())
            .is_some_and(|status| status.phase == Some(phase))
    }
}

/// Something that looks like an adapter, in a registry without a login.
async fn push(registry: &Registry) -> Result<AdapterStatus> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("adapter_config.json"), "{}")?;
    std::fs::write(folder.path().join("adapter_model.safetensors"), "weights")?;
    let image = oci::adapter_image(folder.path(), &BTreeMap::new())?;
    let reference = format!("{}/team/reviews:x", registry.host());
    let options = oci::Options { plain_http: true, ..oci::Options::default() };
    let pushed = oci::push::push(&image, &reference.parse()?, &options).await?;
    Ok(AdapterStatus { image: reference, digest: pushed.digest, size: Some(7) })
}
