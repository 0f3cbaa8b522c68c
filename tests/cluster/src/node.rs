//! A kubelet's part: saying in a pod's status how it stands. The pods are the Job controller's own.

use anyhow::{Context, Result};
use api::Termination;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::wait::Condition;
use serde_json::{Value, json};

use crate::Place;
use crate::karpenter::{now, started};
use crate::wait::{PATIENCE, told, until};

/// How a container ends.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub exit: i32,
    pub reason: Option<String>,
    pub report: Option<Termination>,
}

impl Ending {
    /// With an exit code and nothing said.
    pub fn exit(exit: i32) -> Self {
        Self { exit, ..Self::default() }
    }

    /// Well, with a report.
    pub fn well(report: Termination) -> Self {
        Self { report: Some(report), ..Self::default() }
    }
}

impl Place {
    /// The Job of a name's end (`-pre`, `-t0`), once it has a pod that has not ended; and that pod.
    pub async fn pod_of(&self, suffix: &str) -> Result<(Job, Pod)> {
        let name = self.job_name(suffix).await?;
        until(&self.jobs, &name, has_active_pod()).await?;
        let job = self.jobs.get(&name).await?;
        let pods = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        let pods = self.pods.list(&pods).await?.items;
        let live = pods.into_iter().find(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        });
        Ok((job, live.with_context(|| format!("{name} has no live pod"))?))
    }

    /// The name of the Job that ends so, once it is there.
    pub async fn job_name(&self, suffix: &str) -> Result<String> {
        let mut every = tokio::time::interval(std::time::Duration::from_millis(100));
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            every.tick().await;
            let jobs = self.jobs.list(&ListParams::default()).await?;
            let names = jobs.items.into_iter().filter_map(|job| job.metadata.name);
            if let Some(name) = names.into_iter().find(|name| name.ends_with(suffix)) {
                return Ok(name);
            }
        }
        let all = self.workspaces.list(&ListParams::default()).await?.items;
        let all: Vec<_> = all.into_iter().map(|one| (one.metadata.name, one.status)).collect();
        anyhow::bail!("no job ends in {suffix}; the workspaces are {}", told::<_, ()>(&Ok(all)))
    }

    /// The pod runs from now on.
    pub async fn run_pod(&self, suffix: &str) -> Result<()> {
        let (_, pod) = self.pod_of(suffix).await?;
        self.pod_status(&pod, "Running", json!({"running": {"startedAt": now()}})).await
    }

    /// The pod runs from now on, and answers at this address.
    pub async fn run_pod_at(&self, suffix: &str, address: &str) -> Result<()> {
        let (_, pod) = self.pod_of(suffix).await?;
        let name = pod.metadata.name.as_deref().context("a pod without a name")?;
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
        self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        self.pod_status(&pod, "Running", json!({"running": {"startedAt": now()}})).await
    }

    /// The pod ends.
    pub async fn end_pod(&self, suffix: &str, ending: Ending) -> Result<()> {
        let (_, pod) = self.pod_of(suffix).await?;
        self.end(&pod, ending).await
    }

    /// This pod ends.
    pub async fn end(&self, pod: &Pod, ending: Ending) -> Result<()> {
        let phase = if ending.exit == 0 { "Succeeded" } else { "Failed" };
        let state = json!({"terminated": {
            "exitCode": ending.exit,
            "reason": ending.reason,
            "message": ending.report.map(|report| report.to_message()),
            "startedAt": started(pod),
            "finishedAt": now(),
        }});
        self.pod_status(pod, phase, state).await
    }

    /// Sets a pod's phase and the state of its container.
    pub async fn pod_status(&self, pod: &Pod, phase: &str, state: Value) -> Result<()> {
        let name = pod.metadata.name.as_deref().context("a pod without a name")?;
        let status = json!({"status": {
            "phase": phase,
            "startTime": k8s_openapi::jiff::Timestamp::now().to_string(),
            "containerStatuses": [{"name": "trainer", "ready": phase == "Running",
                "restartCount": 0, "image": "i", "imageID": "", "state": state}],
        }});
        let patch = Patch::Merge(&status);
        self.pods.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// Whether a Job has a pod that has not ended.
fn has_active_pod() -> impl Condition<Job> {
    |job: Option<&Job>| {
        job.and_then(|job| job.status.as_ref()?.active).is_some_and(|active| active > 0)
    }
}
