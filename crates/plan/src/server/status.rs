//! What the server's status says: conditions, replicas, and how far each adapter is.

use api::Fault;
use api::condition::{READY, RECONCILING, STALLED, ServerReason};
use api::model_server::{ModelServerStatus, ServedAdapterStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Server;
use super::declared::Wanted;
use super::observed::ServerObserved;
use super::replicas::{Replicas, Spread};
use super::trouble;
use crate::status::{hinted, list, truncated};

/// The status, and the reason of its condition `Ready`.
pub(super) fn status(
    server: &Server<'_>,
    wanted: &[Wanted],
    replicas: &Replicas<'_>,
    observed: &ServerObserved,
) -> (ModelServerStatus, ServerReason) {
    let spreads: Vec<(&Wanted, Spread)> =
        wanted.iter().map(|wanted| (wanted, replicas.spread(wanted))).collect();
    let ready = replicas.ready.len();
    let (reason, message) = reason(&spreads, replicas, observed);
    let everywhere = |(wanted, spread): &&(&Wanted, Spread)| {
        wanted.trouble.is_none() && ready > 0 && spread.holders == ready
    };
    let held = spreads.iter().filter(everywhere).count();
    let adapters = spreads.iter().map(|(wanted, spread)| adapter(wanted, spread, ready)).collect();
    let status = ModelServerStatus {
        observed_generation: server.raw.metadata.generation,
        conditions: conditions(server, (reason, message), &observed.now),
        summary: Some(format!("{held}/{}", wanted.len())),
        replicas: replicas.pods.len() as u32,
        ready_replicas: ready as u32,
        selector: Some(selector(server)),
        adapters,
    };
    (status, reason)
}

/// The status of a server whose spec holds faults: what runs is still told.
pub(super) fn rejected(
    server: &Server<'_>,
    faults: &[Fault],
    observed: &ServerObserved,
) -> ModelServerStatus {
    unreadable(server, list(faults), &observed.now)
}

/// A spec that is not gone by.
pub(super) fn unreadable(server: &Server<'_>, message: String, now: &Time) -> ModelServerStatus {
    let old = server.raw.status.clone().unwrap_or_default();
    let why = (ServerReason::InvalidSpec, message);
    ModelServerStatus {
        observed_generation: server.raw.metadata.generation,
        conditions: conditions(server, why, now),
        ..old
    }
}

fn adapter(wanted: &Wanted, spread: &Spread, ready: usize) -> ServedAdapterStatus {
    let told = wanted.trouble.as_ref().map(|(_, message)| message);
    let told = told.or(spread.refused.as_ref()).or(spread.unreachable.as_ref());
    let told = told.or(wanted.passed_over.as_ref());
    ServedAdapterStatus {
        name: wanted.name.clone(),
        image: wanted.image.clone(),
        digest: spread.digest.clone(),
        replicas: Some(format!("{}/{ready}", spread.holders)),
        reason: told.map(|text| truncated(text)),
    }
}

/// Why the server is as it is: what is wrong with it, the gravest first.
fn reason(
    spreads: &[(&Wanted, Spread)],
    replicas: &Replicas<'_>,
    observed: &ServerObserved,
) -> (ServerReason, String) {
    if let Some(obstacle) = &observed.obstacle {
        let hint = match obstacle.reason {
            ServerReason::FieldConflict => "make it leave this object alone",
            _ => "change what is refused, or who refuses it; the operator tries again",
        };
        return (obstacle.reason, hinted(&obstacle.what, Some(hint)));
    }
    let (ready, desired) = (replicas.ready.len(), replicas.desired);
    if !replicas.is_rolled_out {
        return trouble::of(replicas, observed).unwrap_or_else(|| {
            (ServerReason::Starting, format!("{ready} of {desired} replicas are ready"))
        });
    }
    if let Some((pod, why)) = replicas.silent() {
        let message = format!("the pod `{pod}` does not say what it holds: {why}");
        let hint = "let the operator's pods reach its port 8081";
        return (ServerReason::ReplicaSilent, hinted(&message, Some(hint)));
    }
    if let Some(trouble) = of_adapters(spreads, ready) {
        return trouble;
    }
    let message = match spreads.len() {
        0 => format!("{ready} replicas serve the base model"),
        count => format!("{ready} replicas serve the base model and {count} adapters"),
    };
    (ServerReason::Serving, message)
}

/// What is wrong with adapters, the gravest first.
fn of_adapters(spreads: &[(&Wanted, Spread)], ready: usize) -> Option<(ServerReason, String)> {
    let refused = spreads.iter().find_map(|(wanted, spread)| {
        let why = spread.refused.as_ref()?;
        let message = format!("the adapter `{}` is refused: {why}", wanted.name);
        let hint = "what was served under its name goes on; publish another revision, or name an older one";
        Some((ServerReason::AdapterRefused, hinted(&message, Some(hint))))
    });
    let missing = || {
        spreads.iter().find_map(|(wanted, _)| {
            let (reason, why) = wanted.trouble.as_ref()?;
            Some((*reason, format!("the adapter `{}`: {why}", wanted.name)))
        })
    };
    let lacks = spreads.iter().filter(|(_, spread)| spread.holders < ready);
    let lacks: Vec<&(&Wanted, Spread)> = lacks.collect();
    let unreachable = || {
        lacks.iter().find_map(|(wanted, spread)| {
            let why = spread.unreachable.as_ref()?;
            let message = format!("cannot look for the adapter `{}`: {why}", wanted.name);
            Some((ServerReason::RegistryUnreachable, hinted(&message, Some("check the registry"))))
        })
    };
    let loading = || {
        let (wanted, spread) = lacks.first()?;
        let (name, holders) = (&wanted.name, spread.holders);
        let message = format!("the adapter `{name}` is held by {holders} of {ready} replicas");
        Some((ServerReason::LoadingAdapters, message))
    };
    refused.or_else(missing).or_else(unreachable).or_else(loading)
}

/// All conditions. One whose truth has not changed keeps its time.
fn conditions(
    server: &Server<'_>,
    (reason, message): (ServerReason, String),
    now: &Time,
) -> Vec<Condition> {
    let is_ready = reason == ServerReason::Serving;
    let is_stalled = matches!(reason, ServerReason::InvalidSpec | ServerReason::AdapterRefused);
    let holds = [(READY, is_ready), (RECONCILING, !is_ready && !is_stalled), (STALLED, is_stalled)];
    let old = server.raw.status.as_ref().map(|old| old.conditions.as_slice()).unwrap_or_default();
    let generation = server.raw.metadata.generation;
    crate::status::said(&holds, (reason.as_str(), message), old, generation, now)
}

/// The pods' labels, as the scale subresource tells them.
fn selector(server: &Server<'_>) -> String {
    let labels = server.selector();
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}
