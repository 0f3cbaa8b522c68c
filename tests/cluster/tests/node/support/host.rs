//! A container's process as the machine sees it: what no API of the cluster can do to it is done from
//! there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, kill_process};

pub(crate) use rustix::process::Signal;

/// Longest wait for a process or for its word.
const PATIENCE: Duration = Duration::from_mins(4);
/// Longest time that a process runs on unseen.
const GLANCE: Duration = Duration::from_millis(10);

/// The trainer of a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(Pid);

impl Process {
    /// The trainer of a pod that is about to start, once there is one.
    pub(crate) async fn of(pod: &Pod) -> Result<Self> {
        let uid = pod.metadata.uid.as_deref().context("a pod without a uid")?;
        until(&format!("a process of pod {uid}"), || find(uid)).await
    }

    pub(crate) fn send(self, signal: Signal) -> Result<()> {
        kill_process(self.0, signal).context("cannot send a signal")
    }

    /// Waits until the trainer has written such an event.
    pub(crate) async fn event(self, text: &str) -> Result<()> {
        let file = format!("/proc/{}/root/work/run/events.jsonl", self.0.as_raw_pid());
        let is_told =
            || fs::read_to_string(&file).is_ok_and(|told| told.contains(text)).then_some(());
        until(text, is_told).await
    }

    /// From now on it gets so many bytes more of address space than it has, and no more.
    pub(crate) fn limit_growth(self, bytes: u64) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.as_raw_pid()))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let kibibytes = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let bytes = kibibytes.context("no VmSize")? * 1024 + bytes;
        // As the trainer's own user: root may lack the right to limit the processes of others.
        let told = Command::new("setpriv")
            .args(["--reuid=65532", "--regid=65532", "--clear-groups", "prlimit"])
            .args([format!("--pid={}", self.0.as_raw_pid()), format!("--as={bytes}")])
            .output()
            .context("cannot start setpriv")?;
        let errors = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "cannot limit the address space: {errors}");
        Ok(())
    }
}

/// The trainer among the machine's processes, by its control group, which is named after the pod.
fn find(uid: &str) -> Option<Process> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let holds = |name: &str, is_it: &dyn Fn(&str) -> bool| {
            fs::read_to_string(entry.path().join(name)).is_ok_and(|text| is_it(&text))
        };
        let is_it = holds("cmdline", &|text| text.starts_with("/usr/local/bin/trainer"))
            && holds("cgroup", &|text| text.contains(uid));
        if is_it { Pid::from_raw(number).map(Process) } else { None }
    })
}

async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> Result<T> {
    let mut every = tokio::time::interval(GLANCE);
    let end = tokio::time::Instant::now() + PATIENCE;
    while every.tick().await < end {
        if let Some(found) = look() {
            return Ok(found);
        }
    }
    bail!("waited {PATIENCE:?} for {what}")
}
