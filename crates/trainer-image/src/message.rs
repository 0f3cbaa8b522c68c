//! The termination message: a file that the kubelet reads when the container has ended.

use std::path::PathBuf;

/// Kubernetes' own place for it.
const MESSAGE: &str = "/dev/termination-log";

/// Where it goes: `ANNEAL_TERMINATION_LOG`, or Kubernetes' own place.
fn path() -> PathBuf {
    std::env::var_os("ANNEAL_TERMINATION_LOG").map_or_else(|| MESSAGE.into(), PathBuf::from)
}

/// Writes the message, in place of an earlier one. The kubelet keeps 4 KiB of it.
pub fn write(text: &str) {
    let path = path();
    if let Err(error) = std::fs::write(&path, text) {
        tracing::warn!(%error, path = %path.display(), "cannot write the termination message");
    }
}
