//! What the operator asked the API server for, as the API server's audit log has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::cluster::ControlPlane;

/// The part of the log after some moment.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    start: u64,
}

/// Requests by verb and resource, such as `patch jobs` and `patch finetuneworkspaces/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Requests(pub BTreeMap<String, u64>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    object_ref: Option<About>,
}

#[derive(Deserialize)]
struct About {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
}

impl Audit {
    /// What is asked for from now on.
    pub fn from_now(plane: &ControlPlane) -> Result<Self> {
        let path = plane.audit_log();
        let start = path.metadata().map_or(0, |found| found.len());
        Ok(Self { path, start })
    }

    /// All requests until now.
    pub fn requests(&self) -> Result<Requests> {
        self.of(|_| true)
    }

    /// Those about objects of a namespace.
    pub fn requests_in(&self, namespace: &str) -> Result<Requests> {
        self.of(|about| about.namespace == namespace)
    }

    fn of(&self, is_meant: impl Fn(&About) -> bool) -> Result<Requests> {
        let mut file = File::open(&self.path).context("the API server keeps no audit log")?;
        file.seek(SeekFrom::Start(self.start))?;
        let mut found = BTreeMap::new();
        for line in BufReader::new(file).lines() {
            // The last line may not be whole yet.
            let Ok(line) = serde_json::from_str::<Line>(&line?) else { continue };
            // A watch counts when it begins, everything else when it is answered.
            let counts = (line.verb == "watch") == (line.stage == "ResponseStarted");
            let Some(about) = line.object_ref.filter(|about| counts && is_meant(about)) else {
                continue;
            };
            let About { resource, subresource, .. } = about;
            let slash = if subresource.is_empty() { "" } else { "/" };
            *found.entry(format!("{} {resource}{slash}{subresource}", line.verb)).or_default() += 1;
        }
        Ok(Requests(found))
    }
}

impl Requests {
    /// Those that write.
    pub fn writes(&self) -> u64 {
        self.sum(|verb, _| !matches!(verb, "get" | "list" | "watch"))
    }

    /// Those that write, but for the operator's own Lease.
    pub fn writes_beside_leases(&self) -> u64 {
        self.sum(|verb, what| !matches!(verb, "get" | "list" | "watch") && what != "leases")
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.sum(|_, _| true)
    }

    fn sum(&self, is_meant: impl Fn(&str, &str) -> bool) -> u64 {
        let split = |name: &String| {
            let (verb, what) = name.split_once(' ').unwrap_or((name, ""));
            is_meant(verb, what)
        };
        self.0.iter().filter(|(name, _)| split(name)).map(|(_, count)| count).sum()
    }
}
