//! What this machine can do: the facts that `plan` chooses by.

use std::fs;
use std::process::{Command, Stdio};

use api::{GpuFacts, MachineFacts};

/// Looks at processors, memory and GPU.
pub fn facts() -> MachineFacts {
    MachineFacts {
        cpus: train::runtime::available_threads() as u64,
        memory: memory(),
        bf16: lm::products::multiplies_bf16(),
        gpu: if tch::Cuda::is_available() { gpu() } else { None },
    }
}

/// Bytes: what the machine has, or the container's limit where that is less.
fn memory() -> u64 {
    let installed = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    installed.into_iter().chain(limits.into_iter().flatten()).min().unwrap_or(0)
}

fn total(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The first GPU, as the driver's own tool tells it.
fn gpu() -> Option<GpuFacts> {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (product, mebibytes) = text.lines().next()?.rsplit_once(',')?;
    let memory = mebibytes.trim().parse::<u64>().ok()? * 1024 * 1024;
    Some(GpuFacts { product: product.trim().to_owned(), memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        assert_eq!(total("MemTotal:       24000 kB\nMemFree: 1 kB\n"), Some(24_576_000));
    }
}
