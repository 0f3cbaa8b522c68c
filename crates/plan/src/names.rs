//! Names and labels of the objects that a workspace has.

use std::collections::BTreeMap;

use api::FineTuneWorkspace;
use api::condition::READY;
use api::workspace::{API_VERSION, FineTuneWorkspaceSpec, FineTuneWorkspaceStatus, KIND};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Label: the workspace's name.
pub const WORKSPACE: &str = "anneal.dev/workspace";
/// Label: the revision that the object belongs to.
pub const REVISION: &str = "anneal.dev/revision";
/// Label: `preflight` or `train`.
pub const ROLE: &str = "anneal.dev/role";
/// Label: the name of the `ModelServer` that the object belongs to.
pub const SERVER: &str = "anneal.dev/server";
/// Value of [`ROLE`] for pods that serve.
pub const SERVE: &str = "serve";
/// Annotation: a hash of what the operator asked for, so that what it asks for no more is taken away.
pub const ASKED: &str = "anneal.dev/asked";
/// Annotation of a training Job that the operator ends because it shows no sign of work.
pub const STALLED: &str = "anneal.dev/stalled";
/// Label: the namespace of the workspace that an object of the whole cluster is made for.
pub const NAMESPACE: &str = "anneal.dev/namespace";
/// Label: the UID of that workspace.
pub const UID: &str = "anneal.dev/workspace-uid";
/// Label and taint of nodes that are made for one run.
pub const POOL: &str = "anneal.dev/pool";
/// Label of a training Job: what makes its nodes.
pub const PROVISIONER: &str = "anneal.dev/provisioner";
/// Finalizer of a workspace that has objects of the whole cluster.
pub const FINALIZER: &str = "anneal.dev/nodes";
/// Label that Kueue reads.
pub const QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Label and value by which all our objects are found.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "anneal");

/// Digits of a revision.
const DIGITS: usize = 12;
/// Digits of a revision in a name: 50 characters of the workspace's name, these, two hyphens and `t`
/// with a number up to 100 make no more than a DNS label.
const DIGITS_IN_NAME: usize = 8;

/// What a Job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Preflight,
    Train,
}

impl Role {
    /// The label's value, which is also the trainer's command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Train => "train",
        }
    }
}

/// Hash over the part of a spec that training depends on: another one is another run.
///
/// Names of secrets, how memory is used, the machine, the output and the limits are left out. Images
/// count by the reference that the user wrote: pin a digest to train anew when the content changes.
pub fn workspace_revision(spec: &FineTuneWorkspaceSpec) -> String {
    let mut content = json!({
        "baseModel": spec.base_model,
        "data": spec.data,
        "method": spec.method,
        "adapter": spec.adapter,
        "hyperparameters": spec.hyperparameters,
        "earlyStopping": spec.early_stopping,
        "validation": spec.evaluation.as_ref().map(|evaluation| evaluation.every_steps),
    });
    for (block, field) in [
        ("/baseModel", "pullSecret"),
        ("/baseModel/huggingFace", "tokenSecret"),
        ("/data", "pullSecret"),
        ("/hyperparameters", "microBatchTokens"),
        ("/hyperparameters", "activationCheckpointing"),
    ] {
        if let Some(Value::Object(fields)) = content.pointer_mut(block) {
            fields.shift_remove(field);
        }
    }
    hex(&content.to_string())
}

/// One revision of a workspace, and what its objects are called.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) raw: &'a FineTuneWorkspace,
    pub(crate) revision: String,
}

impl<'a> Run<'a> {
    pub(crate) fn new(raw: &'a FineTuneWorkspace) -> Self {
        Self { raw, revision: workspace_revision(&raw.spec) }
    }

    fn workspace(&self) -> &str {
        self.raw.metadata.name.as_deref().unwrap_or_default()
    }

    /// The `ConfigMap`'s name.
    pub(crate) fn config_map(&self) -> String {
        format!("{}-{}", self.workspace(), &self.revision[..DIGITS_IN_NAME])
    }

    /// The preflight Job's name.
    pub(crate) fn preflight(&self) -> String {
        format!("{}-pre", self.config_map())
    }

    /// The name of the training Job of a number, counted from 0.
    pub(crate) fn training(&self, number: u32) -> String {
        format!("{}-t{number}", self.config_map())
    }

    /// The status of this revision.
    pub(crate) fn kept(&self) -> Option<&FineTuneWorkspaceStatus> {
        let status = self.raw.status.as_ref();
        status.filter(|status| status.revision.as_ref() == Some(&self.revision))
    }

    /// The name of what is made for the nodes: no other revision, workspace or namespace has it, and it
    /// is a label's value.
    pub(crate) fn pool(&self) -> String {
        let metadata = &self.raw.metadata;
        let whole = json!([metadata.namespace, metadata.uid, self.revision]);
        // GKE takes no class whose name begins so.
        let is_taken = |name: &str| name.starts_with("gke") || name.starts_with("autopilot");
        let name = Some(self.workspace()).filter(|name| !is_taken(name)).unwrap_or("run");
        format!("{name}-{}", hex(&whole.to_string()))
    }

    /// Metadata of an object of the whole cluster: it does not go with the workspace.
    pub(crate) fn metadata_of_cluster(&self, name: String) -> ObjectMeta {
        let mut labels = self.labels(None);
        let metadata = &self.raw.metadata;
        labels.insert(NAMESPACE.to_owned(), metadata.namespace.clone().unwrap_or_default());
        labels.insert(UID.to_owned(), metadata.uid.clone().unwrap_or_default());
        ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() }
    }

    /// Labels of everything that belongs to this revision.
    pub(crate) fn labels(&self, role: Option<Role>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
            (WORKSPACE.to_owned(), self.workspace().to_owned()),
            (REVISION.to_owned(), self.revision.clone()),
        ]);
        if let Some(role) = role {
            labels.insert(ROLE.to_owned(), role.as_str().to_owned());
        }
        labels
    }

    /// Metadata of an object that goes when the workspace goes.
    pub(crate) fn metadata(&self, name: String, role: Option<Role>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: self.raw.metadata.namespace.clone(),
            labels: Some(self.labels(role)),
            owner_references: Some(vec![OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: KIND.to_owned(),
                name: self.workspace().to_owned(),
                uid: self.raw.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        }
    }
}

/// Digits by which an event is known that tells of the step from the status as it is to a reason.
pub(crate) fn event_key(raw: &FineTuneWorkspace, reason: &str) -> String {
    let old = raw.status.clone().unwrap_or_default();
    let ready = old.conditions.iter().find(|one| one.type_ == READY);
    let from = json!([
        raw.metadata.uid,
        old.revision,
        old.observed_generation,
        ready.map(|ready| &ready.reason),
        // Which attempts there were, and how they ended: a step is told once for each of them.
        old.attempts.iter().map(|one| (&one.pod, &one.outcome)).collect::<Vec<_>>(),
        reason,
    ]);
    hex(&from.to_string())
}

/// The beginning of a text's hash.
pub(crate) fn hex(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..DIGITS].to_owned()
}

/// The number in the name of a training Job.
pub(crate) fn number(job: &Job) -> u32 {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    name.rsplit_once("-t").and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0)
}

/// A label's value, or nothing.
pub(crate) fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}
