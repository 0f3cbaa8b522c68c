//! Which adapters a server is to hold, from its spec and what its workspaces have published.

use std::collections::BTreeMap;

use api::ModelServer;
use api::condition::ServerReason;
use api::model_server::ServedAdapter;
use api::names::ImageReference;
use api::workspace::Published;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::observed::ServerObserved;
use super::render::PULL;

/// The key of the `ConfigMap`, and the file's name in the pod.
pub(crate) const FILE: &str = "adapters.json";

/// An adapter of the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// The image that pods are told; none where nothing is known of it, now or before.
    pub(crate) image: Option<String>,
    pub(crate) pull_secret: Option<String>,
    /// Why the image is not what the spec asks for.
    pub(crate) trouble: Option<(ServerReason, String)>,
    /// Why a newer revision is passed over.
    pub(crate) passed_over: Option<String>,
}

impl Wanted {
    /// The digest, where the image names it.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.image.as_deref()?.split_once('@').map(|(_, digest)| digest)
    }

    pub(crate) fn follows_a_tag(&self) -> bool {
        self.image.is_some() && self.digest().is_none()
    }
}

/// What pods are told. `serve` reads the same form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Declaration {
    /// The higher one of two is the newer one.
    pub sequence: u64,
    pub adapters: Vec<Row>,
}

/// An adapter that pods are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Row {
    pub name: String,
    pub image: String,
    /// Folder of Docker's configuration in the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_config: Option<String>,
}

impl Declaration {
    /// What stands in a `ConfigMap`.
    pub(crate) fn read(map: &ConfigMap) -> Option<Self> {
        serde_json::from_str(map.data.as_ref()?.get(FILE)?).ok()
    }

    pub(crate) fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("a declaration holds nothing that JSON cannot") + "\n"
    }

    /// The declaration for what is wanted: the one that is there, or one with a higher number. Seconds since
    /// 1970 make one that is higher also where the last one was lost.
    pub(super) fn next(wanted: &[Wanted], observed: &ServerObserved) -> Self {
        let row = |wanted: &Wanted| {
            Some(Row {
                name: wanted.name.clone(),
                image: wanted.image.clone()?,
                docker_config: wanted.pull_secret.as_ref().map(|secret| format!("{PULL}/{secret}")),
            })
        };
        let adapters: Vec<Row> = wanted.iter().filter_map(row).collect();
        let there = observed.config_map.as_ref().and_then(Self::read);
        let last = there.as_ref().map(|there| there.sequence);
        if let Some(there) = there.filter(|there| there.adapters == adapters) {
            return there;
        }
        let seconds = u64::try_from(observed.now.0.as_second()).unwrap_or_default();
        let held = observed.held.values().flatten().map(|holding| holding.sequence);
        let last = held.chain(last).max();
        Self { sequence: last.map_or(seconds, |last| seconds.max(last + 1)), adapters }
    }
}

/// Every adapter of the spec. What is not to be had keeps the image that its name had before.
pub(super) fn wanted(raw: &ModelServer, observed: &ServerObserved) -> Vec<Wanted> {
    let declared = observed.config_map.as_ref().and_then(Declaration::read).unwrap_or_default();
    let status = raw.status.as_ref().map(|status| status.adapters.as_slice()).unwrap_or_default();
    let told: BTreeMap<&str, &str> = status
        .iter()
        .filter_map(|one| Some((one.name.as_str(), one.image.as_deref()?)))
        .chain(declared.adapters.iter().map(|row| (row.name.as_str(), row.image.as_str())))
        .collect();
    let one = |adapter: &ServedAdapter| {
        let before = || told.get(adapter.name.as_str()).map(|image| (*image).to_owned());
        let (image, passed_over, trouble) = match found(adapter, observed) {
            Ok((image, passed_over)) => (Some(image), passed_over, None),
            Err(trouble) => (before(), None, Some(trouble)),
        };
        let (name, pull_secret) = (adapter.name.clone(), adapter.pull_secret.clone());
        Wanted { name, image, pull_secret, trouble, passed_over }
    };
    raw.spec.adapters.iter().map(one).collect()
}

/// The image of an adapter, with why a newer revision is passed over; or why there is none.
fn found(
    adapter: &ServedAdapter,
    observed: &ServerObserved,
) -> Result<(String, Option<String>), (ServerReason, String)> {
    let Some(workspace) = &adapter.workspace else {
        return Ok((adapter.image.clone().unwrap_or_default(), None));
    };
    let Some(published) = observed.workspaces.get(workspace) else {
        let message = format!("there is no workspace `{workspace}` in this namespace");
        return Err((ServerReason::AdapterMissing, message));
    };
    let Some(newest) = published.last() else {
        let message = format!("the workspace `{workspace}` has published nothing yet");
        return Err((ServerReason::AwaitingAdapter, message));
    };
    let Some(revision) = &adapter.revision else { return followed(workspace, published, newest) };
    let chosen = published.iter().find(|one| one.revision == *revision);
    chosen.map(|chosen| (pinned(chosen), None)).ok_or_else(|| {
        let known: Vec<&str> = published.iter().map(|one| one.revision.as_str()).collect();
        let message = format!(
            "the workspace `{workspace}` has published no revision `{revision}`, but {}",
            known.join(", ")
        );
        (ServerReason::AdapterMissing, message)
    })
}

/// The newest revision that passed its gate, or had none.
fn followed(
    workspace: &str,
    published: &[Published],
    newest: &Published,
) -> Result<(String, Option<String>), (ServerReason, String)> {
    let revision = &newest.revision;
    let Some(why) = &newest.gate_failed else { return Ok((pinned(newest), None)) };
    let failed =
        format!("revision {revision} failed the gate of the workspace `{workspace}`: {why}");
    match published.iter().rfind(|one| one.gate_failed.is_none()) {
        Some(passed) => {
            Ok((pinned(passed), Some(format!("{failed}; {} is served", passed.revision))))
        }
        None => Err((ServerReason::AwaitingAdapter, format!("{failed}; none has passed"))),
    }
}

/// The image by its digest, without a tag: a tag may be moved.
fn pinned(published: &Published) -> String {
    let parsed = ImageReference::parse(&published.image);
    let repository = parsed.map_or_else(
        |_| published.image.clone(),
        |image| ImageReference { tag: None, digest: None, ..image }.to_string(),
    );
    format!("{repository}@{}", published.digest)
}
