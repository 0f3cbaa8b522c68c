//! The pods of a server: which are ready, and which of them hold what is wanted.

use k8s_openapi::api::core::v1::Pod;

use super::declared::{Declaration, Wanted};
use super::observed::{HeldAdapter, HeldState, Holding, ServerObserved};
use super::{Server, Telling};
use crate::seen;

/// The pods that are there, but for those that are about to end.
#[derive(Debug)]
pub(super) struct Replicas<'a> {
    pub(super) pods: Vec<&'a Pod>,
    pub(super) ready: Vec<&'a Pod>,
    /// How many there should be.
    pub(super) desired: i32,
    /// Whether the Deployment has brought all pods to what it asks for now.
    pub(super) is_rolled_out: bool,
    sequence: u64,
    observed: &'a ServerObserved,
}

/// How far an adapter is over all ready pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) digest: Option<String>,
    /// Ready pods that hold it.
    pub(super) holders: usize,
    pub(super) refused: Option<String>,
    pub(super) unreachable: Option<String>,
}

impl<'a> Replicas<'a> {
    pub(super) fn new(
        server: &Server<'_>,
        declaration: &Declaration,
        observed: &'a ServerObserved,
    ) -> Self {
        let stays = |pod: &&Pod| {
            let is_over = matches!(seen::phase(pod), "Succeeded" | "Failed");
            pod.metadata.deletion_timestamp.is_none() && !is_over
        };
        let mut pods: Vec<&Pod> = observed.pods.iter().filter(stays).collect();
        pods.sort_by_key(|pod| {
            (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone())
        });
        let ready: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).copied().collect();
        let deployment = observed.deployment.as_ref();
        let spec = deployment.and_then(|deployment| deployment.spec.as_ref());
        let desired = server.raw.spec.replicas.map(|count| count as i32);
        let scaled = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let desired =
            desired.unwrap_or(if server.raw.spec.autoscaling.is_some() { scaled } else { 1 });
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        let is_rolled_out = status.is_some_and(|status| {
            let generation = deployment.and_then(|deployment| deployment.metadata.generation);
            let count = |number: Option<i32>| number.unwrap_or(0);
            status.observed_generation >= generation
                && count(status.updated_replicas) == desired
                && count(status.ready_replicas) == desired
                && count(status.replicas) == desired
                // The watch of pods may be behind that of the Deployment.
                && ready.len() as i32 == desired
        });
        let sequence = declaration.sequence;
        Self { pods, ready, desired, is_rolled_out, sequence, observed }
    }

    /// What a pod says, where it has said something.
    pub(super) fn holding(&self, pod: &Pod) -> Option<&'a Result<Holding, String>> {
        self.observed.held.get(pod.metadata.name.as_deref()?)
    }

    /// A ready pod that says nothing, and why.
    pub(super) fn silent(&self) -> Option<(&'a str, &'a str)> {
        let observed = self.observed;
        self.ready.iter().find_map(|pod| {
            let name = pod.metadata.name.as_deref()?;
            match observed.held.get(name)? {
                Ok(_) => None,
                Err(why) => Some((name, why.as_str())),
            }
        })
    }

    /// Whether pods run that are not ready: they tell when they are, and how far they are until then is worth
    /// a look.
    pub(super) fn is_loading(&self) -> bool {
        self.pods.len() > self.ready.len()
            && self.pods.iter().any(|pod| self.holding(pod).is_some())
    }

    /// Pods that answered, and go by an older declaration.
    pub(super) fn tellings(&self, declaration: &Declaration) -> Vec<Telling> {
        let telling = |pod: &&Pod| {
            let Some(Ok(holding)) = self.holding(pod) else { return None };
            (holding.sequence < declaration.sequence).then_some(())?;
            Some(Telling {
                pod: pod.metadata.name.clone()?,
                address: pod.status.as_ref()?.pod_ip.clone()?,
                declaration: declaration.clone(),
            })
        };
        self.pods.iter().filter_map(telling).collect()
    }

    /// How far an adapter is.
    pub(super) fn spread(&self, wanted: &Wanted) -> Spread {
        let rows: Vec<&HeldAdapter> =
            self.ready.iter().filter_map(|pod| self.row(pod, wanted)).collect();
        let digest =
            wanted.digest().map_or_else(|| newest(&rows), |digest| Some(digest.to_owned()));
        let reason = |state: HeldState| {
            let row = rows.iter().find(|row| row.state == state);
            row.map(|row| row.reason.clone().unwrap_or_default())
        };
        Spread {
            holders: rows.iter().filter(|row| holds(row, digest.as_deref())).count(),
            refused: reason(HeldState::Refused),
            unreachable: reason(HeldState::Unreachable),
            digest,
        }
    }

    /// What a pod says of an adapter, where it goes by what is declared now.
    fn row(&self, pod: &Pod, wanted: &Wanted) -> Option<&'a HeldAdapter> {
        let holding = self.holding(pod)?.as_ref().ok()?;
        let row = holding.adapters.iter().find(|row| row.name == wanted.name)?;
        let is_meant = wanted.image.as_ref() == Some(&row.source);
        (holding.sequence >= self.sequence && is_meant).then_some(row)
    }
}

/// Whether a pod serves a digest. A registry that does not answer takes nothing away.
fn holds(row: &HeldAdapter, digest: Option<&str>) -> bool {
    let serves = matches!(row.state, HeldState::Serving | HeldState::Unreachable);
    serves && digest.is_some() && row.digest.as_deref() == digest
}

/// What a tag stands for: the digest that most pods want.
fn newest(rows: &[&HeldAdapter]) -> Option<String> {
    let all = || rows.iter().filter_map(|row| row.wanted_digest.as_ref().or(row.digest.as_ref()));
    let votes = |digest: &String| all().filter(|other| *other == digest).count();
    all().max_by_key(|digest| (votes(digest), *digest)).cloned()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
