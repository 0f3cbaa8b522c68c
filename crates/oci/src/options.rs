//! How a registry is spoken to, and what is told while it happens.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a registry is spoken to.
#[derive(Clone)]
pub struct Options {
    /// Certificates in PEM of authorities to trust beside the system's. `SSL_CERT_FILE` names a
    /// file to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Speak http to any registry. Loopback registries are asked which of the two they speak.
    pub plain_http: bool,
    /// Folder of Docker's `config.json`; unset is `DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// How often a request that failed for a reason that may pass is made in all.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from one attempt to the next.
    pub backoff: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of a registry.
    pub idle_timeout: Duration,
    /// Told of progress and retries. Called from the thread that runs the transfer.
    pub on_event: Arc<dyn Fn(&Event) + Send + Sync>,
}

/// Something worth showing while an image is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of the image that are where they should be, and bytes in all.
    Progress { done: u64, total: u64 },
    /// A blob was already there and is not moved again.
    Present { digest: String, size: u64 },
    /// An attempt failed for a reason that may pass; the next one is made after `wait`.
    Retry { attempt: u32, attempts: u32, wait: Duration, reason: String },
}

impl Default for Options {
    /// Six attempts over about fifteen seconds.
    fn default() -> Self {
        Self {
            ca_file: None,
            plain_http: false,
            docker_config: None,
            attempts: 6,
            backoff: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            on_event: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("ca_file", &self.ca_file)
            .field("plain_http", &self.plain_http)
            .field("docker_config", &self.docker_config)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl Options {
    pub(crate) fn tell(&self, event: &Event) {
        (self.on_event)(event);
    }
}
