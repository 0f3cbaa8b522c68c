//! A container's process as the machine sees it: what no API of the cluster can do to it is done from
//! there.

use std::fs;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, Resource, Rlimit, kill_process, prlimit};

pub(crate) use rustix::process::Signal;

/// The trainer of a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(Pid);

impl Process {
    /// Finds it by its control group, which is named after the pod.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let uid = pod.metadata.uid.as_deref().context("a pod without a uid")?;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            if read("cgroup").contains(uid) && read("cmdline").starts_with("/usr/local/bin/trainer")
            {
                return Ok(Self(Pid::from_raw(number).context("no number of a process")?));
            }
        }
        anyhow::bail!("no process belongs to pod {uid}")
    }

    pub(crate) fn send(self, signal: Signal) -> Result<()> {
        kill_process(self.0, signal).context("cannot send a signal")
    }

    /// Bytes of address space that it has.
    pub(crate) fn address_space(self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.as_raw_pid()))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let kibibytes = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kibibytes.context("no VmSize")? * 1024)
    }

    /// From now on it gets no more address space than this.
    pub(crate) fn limit_address_space(self, bytes: u64) -> Result<()> {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        prlimit(Some(self.0), Resource::As, limit).context("cannot limit the address space")?;
        Ok(())
    }
}
