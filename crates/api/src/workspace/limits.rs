//! What bounds a run in a cluster.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What bounds a run in a cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Longest time that the training may take from its start, such as `2h` or `1h30m`. No limit when
    /// unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,

    /// How often a run is tried again after a failure that may pass: I/O, memory, a lost node. Mistakes
    /// in data, configuration and credentials are never tried again. 3 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub retries: Option<u32>,

    /// Longest time that the trainer may show no sign of work, such as a step or a batch of answers.
    /// After it the attempt is ended and counts as one that failed. `30m` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<String>,

    /// How long the finished pods and their logs are kept, such as `24h`. Until the workspace is deleted
    /// when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<String>,
}
