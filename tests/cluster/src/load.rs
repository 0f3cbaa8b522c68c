//! A cluster with many workspaces: made in bulk, with a task that does the kubelet's part for all pods.
//! What is measured with it is in `examples/bench_operator.rs`.

mod audit;
mod kubelet;
mod latency;
mod life;
mod process;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::FineTuneWorkspace;
use api::workspace::Phase;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use testkit::cluster::{ControlPlane, User};

use crate::{WORKSPACE, client, install};

pub use audit::{Audit, Requests};
pub use kubelet::Kubelet;
pub use latency::Latency;
pub use process::{Memory, cpu_seconds, memory};

/// Requests of ours that are under way at the same time.
pub(crate) const AT_ONCE: usize = 16;
/// Longest wait for a whole cluster to be in a state.
const PATIENCE: Duration = Duration::from_mins(15);

/// A control plane of one's own, with the definition and the roles installed.
#[expect(missing_debug_implementations, reason = "a client has none")]
pub struct Load {
    pub plane: &'static ControlPlane,
    pub client: Client,
    /// Workspaces of every namespace.
    pub all: Api<FineTuneWorkspace>,
    namespaces: Vec<String>,
}

impl Load {
    /// With so many namespaces.
    pub async fn new(namespaces: usize) -> Result<Self> {
        let plane = tokio::task::spawn_blocking(ControlPlane::start).await;
        // It ends with this process.
        let plane: &ControlPlane = Box::leak(Box::new(plane.context("no control plane")??));
        let client = client(plane, User::Admin).await?;
        install(&client).await?;
        let load = Self {
            plane,
            all: Api::all(client.clone()),
            namespaces: (0..namespaces).map(|number| format!("load-{number}")).collect(),
            client,
        };
        for name in &load.namespaces {
            load.namespace(name).await?;
        }
        Ok(load)
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// The namespace of a workspace of this number.
    pub fn namespace_of(&self, number: usize) -> &str {
        &self.namespaces[number % self.namespaces.len()]
    }

    /// Makes the workspaces of these numbers.
    pub async fn create(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        futures::stream::iter(numbers)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, async |number| {
                let api = Api::namespaced(self.client.clone(), self.namespace_of(number));
                let workspace = workspace(&name_of(number), "registry.example.com/team/reviews")?;
                api.create(&PostParams::default(), &workspace).await?;
                Ok(())
            })
            .await
    }

    /// Waits until so many workspaces are in a phase, and tells how long it took.
    pub async fn until(&self, phase: Phase, count: usize) -> Result<Duration> {
        let start = Instant::now();
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            // What the API server has in memory will do.
            let all = self.all.list(&ListParams::default().match_any()).await?;
            let is_in = |workspace: &&FineTuneWorkspace| {
                workspace.status.as_ref().is_some_and(|status| status.phase == Some(phase))
            };
            let found = all.items.iter().filter(is_in).count();
            if found >= count {
                return Ok(start.elapsed());
            }
            if start.elapsed() > PATIENCE {
                bail!("after {PATIENCE:?}, {found} of {count} workspaces are in {phase:?}");
            }
        }
    }

    /// Waits until the operator has asked for nothing but its Lease for so long.
    pub async fn until_quiet(&self, quiet: Duration) -> Result<()> {
        let mut every = tokio::time::interval(quiet);
        every.tick().await;
        for _ in 0..40 {
            let audit = Audit::from_now(self.plane)?;
            every.tick().await;
            if audit.requests()?.writes_beside_leases() == 0 {
                return Ok(());
            }
        }
        bail!("the operator goes on writing:\n{:?}", Audit::from_now(self.plane)?.requests()?)
    }
}

/// A workspace's name: `ws-0042`.
pub fn name_of(number: usize) -> String {
    format!("ws-{number:04}")
}

/// The smallest workspace with this name and output.
pub fn workspace(name: &str, output: &str) -> Result<FineTuneWorkspace> {
    let text = WORKSPACE
        .replace("name: reviews", &format!("name: {name}"))
        .replace("registry.example.com/team/reviews", output);
    Ok(serde_yaml::from_str(&text)?)
}
