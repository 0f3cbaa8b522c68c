//! How long it takes from a change of a workspace to the change of its Job.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use api::FineTuneWorkspace;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Load, name_of, workspace};

/// Longest wait for one change.
const PATIENCE: Duration = Duration::from_secs(30);

/// Quantiles of a time, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub most: f64,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Result<Self> {
        ensure!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        let rank = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times[rank.clamp(1, times.len()) - 1].as_secs_f64()
        };
        Ok(Self { count: times.len(), p50: rank(0.5), p99: rank(0.99), most: rank(1.0) })
    }
}

/// A Job as a watch shows it, and when.
struct Sight {
    /// Namespace and workspace.
    of: (String, String),
    deadline: Option<i64>,
    at: Instant,
}

impl Load {
    /// Changes the deadline of so many workspaces, ten a second, and sees when their Jobs have it.
    pub async fn change_deadlines(&self, count: usize) -> Result<Latency> {
        let mut sights = self.sights().await?;
        let mut every = tokio::time::interval(Duration::from_millis(100));
        let mut sent = HashMap::new();
        for number in 0..count {
            every.tick().await;
            let (namespace, name) = (self.namespace_of(number), name_of(number));
            let api: Api<FineTuneWorkspace> = Api::namespaced(self.client.clone(), namespace);
            let deadline = 36_000 + number as i64;
            let patch = json!({"spec": {"limits": {"deadline": format!("{deadline}s")}}});
            sent.insert((namespace.to_owned(), name.clone()), (deadline, Instant::now()));
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let mut times = Vec::new();
        while !sent.is_empty() {
            let sight = next(&mut sights).await?;
            let is_meant = |(deadline, _): &(i64, Instant)| sight.deadline == Some(*deadline);
            if sent.get(&sight.of).is_some_and(is_meant)
                && let Some((_, at)) = sent.remove(&sight.of)
            {
                times.push(sight.at.saturating_duration_since(at));
            }
        }
        Latency::of(times)
    }

    /// Makes so many workspaces, one after another, and sees when each has its first Job.
    pub async fn first_jobs(&self, numbers: std::ops::Range<usize>) -> Result<Latency> {
        let mut sights = self.sights().await?;
        let mut times = Vec::new();
        for number in numbers {
            let (namespace, name) = (self.namespace_of(number), name_of(number));
            let api = Api::namespaced(self.client.clone(), namespace);
            let new = workspace(&name, "registry.example.com/team/reviews")?;
            let start = Instant::now();
            api.create(&PostParams::default(), &new).await?;
            let of = (namespace.to_owned(), name);
            loop {
                let sight = next(&mut sights).await?;
                if sight.of == of {
                    times.push(sight.at.saturating_duration_since(start));
                    break;
                }
            }
        }
        Latency::of(times)
    }

    /// Every change of a Job from now on.
    async fn sights(&self) -> Result<UnboundedReceiver<Sight>> {
        let all: Api<Job> = Api::all(self.client.clone());
        let ours = watcher::Config::default().labels(plan::names::WORKSPACE);
        let (sender, receiver) = unbounded_channel();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut ready = Some(ready);
            let mut events = watcher(all, ours).default_backoff().boxed();
            while let Ok(Some(event)) = events.try_next().await {
                let job = match event {
                    watcher::Event::InitDone => {
                        ready.take().map(|ready| ready.send(()));
                        continue;
                    }
                    watcher::Event::Apply(job) => job,
                    watcher::Event::Init
                    | watcher::Event::InitApply(_)
                    | watcher::Event::Delete(_) => continue,
                };
                let label = job.labels().get(plan::names::WORKSPACE).cloned();
                let sight = Sight {
                    of: (job.namespace().unwrap_or_default(), label.unwrap_or_default()),
                    deadline: job.spec.and_then(|spec| spec.active_deadline_seconds),
                    at: Instant::now(),
                };
                if sender.send(sight).is_err() {
                    return;
                }
            }
        });
        is_ready.await.context("the watch of Jobs has ended")?;
        Ok(receiver)
    }
}

async fn next(sights: &mut UnboundedReceiver<Sight>) -> Result<Sight> {
    match tokio::time::timeout(PATIENCE, sights.recv()).await {
        Ok(sight) => sight.context("the watch of Jobs has ended"),
        Err(_) => bail!("no Job has changed for {PATIENCE:?}"),
    }
}
