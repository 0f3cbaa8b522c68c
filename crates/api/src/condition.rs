//! Types of conditions, and the reasons that they give.

use std::fmt;

use serde::{Deserialize, Serialize};

/// kstatus: the object is what its spec asks for.
pub const READY: &str = "Ready";
/// kstatus: the operator is at work, or waits for something that will come.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: nothing will happen until somebody does something.
pub const STALLED: &str = "Stalled";
/// As of a Job: the adapter is published.
pub const COMPLETE: &str = "Complete";
/// As of a Job: the run ended without an adapter.
pub const FAILED: &str = "Failed";
/// As of a Job: no pod may run.
pub const SUSPENDED: &str = "Suspended";

/// The published adapter is what `spec.evaluation.gate` asks for; there only where there is a gate.
pub const GATE_PASSED: &str = "GatePassed";

macro_rules! reasons {
    ($(#[$of:meta])* $of_kind:ident: $($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $of_kind { $($(#[$doc])* $name),* }

        impl $of_kind {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word in the condition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }

        impl fmt::Display for $of_kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a workspace is where it is: the reason of its `Ready` condition.
    Reason:
    /// The spec holds faults, or asks for what only a local run has.
    InvalidSpec,
    /// A secret that the spec names is missing or not what it must be.
    InvalidSecret,
    /// `spec.suspend` is true.
    SuspendedByUser,
    /// The preflight pod is at work.
    PreflightRunning,
    /// The queue has not admitted the run yet.
    AwaitingAdmission,
    /// The pod is about to start.
    Starting,
    /// No GPU product that may be used holds the run.
    NoGpuFits,
    /// The cluster does not serve what the nodes are to be made with.
    ProvisionerMissing,
    /// No node of the cluster could ever take the pod.
    NoNodeFits,
    /// No node takes the pod; the message is the scheduler's.
    Unschedulable,
    /// The pod was refused: a quota, or an admission rule.
    PodRefused,
    /// An image cannot be pulled.
    ImagePullFailed,
    /// The container cannot be started.
    ContainerNotStarting,
    /// The trainer reads model and data, and trains.
    Training,
    /// The trainer shows no sign of work for longer than `limits.stall`.
    TrainerStalled,
    /// Somebody else sets fields of an object that the operator made.
    FieldConflict,
    /// The API server refuses an object, as for an admission rule or a value of the spec.
    ObjectRefused,
    /// The trainer scores the test examples.
    Evaluating,
    /// The adapter is being pushed, or the registry asked for it.
    Publishing,
    /// The registry does not answer.
    RegistryUnreachable,
    /// An attempt ended, and the next one is about to start.
    Retrying,
    /// The adapter is in the registry.
    Succeeded,
    /// The adapter is in the registry, and is not what `spec.evaluation.gate` asks for.
    GateFailed,
    /// Data or configuration that cannot be trained on.
    InvalidData,
    /// A registry or a hub refused the credential.
    CredentialRefused,
    /// Memory did not suffice, not even with a smaller micro-batch.
    OutOfMemory,
    /// Input or output failed again and again.
    InputOutputFailed,
    /// The trainer was stopped or killed more often than allowed.
    Interrupted,
    /// The run took longer than `limits.deadline`.
    DeadlineExceeded,
    /// A mistake in the trainer.
    InternalError,
    /// The registry does not have what the trainer says that it pushed.
    AdapterMissing,
}

reasons! {
    /// Why a server is as it is: the reason of its `Ready` condition.
    ServerReason:
    /// The spec holds faults, or asks for what only a local server has.
    InvalidSpec,
    /// Every replica is ready and holds every declared adapter.
    Serving,
    /// Replicas are about to start, or to end.
    Starting,
    /// No node takes a pod; the message is the scheduler's.
    Unschedulable,
    /// A pod was refused: a quota, or an admission rule.
    PodRefused,
    /// An image cannot be pulled.
    ImagePullFailed,
    /// A container cannot be started, or ends soon after each start.
    ContainerNotStarting,
    /// Replicas take up adapters.
    LoadingAdapters,
    /// A workspace that is named has published nothing yet, or nothing that passed its gate.
    AwaitingAdapter,
    /// A workspace or a revision of one that is named is not there.
    AdapterMissing,
    /// An adapter cannot be verified; what was served under its name goes on being served.
    AdapterRefused,
    /// A registry does not answer, and an adapter is not held by every replica.
    RegistryUnreachable,
    /// A replica that is ready does not tell the operator what it holds.
    ReplicaSilent,
    /// Somebody else sets fields of an object that the operator made.
    FieldConflict,
    /// The API server refuses an object, as for an admission rule or a value of the spec.
    ObjectRefused,
}
