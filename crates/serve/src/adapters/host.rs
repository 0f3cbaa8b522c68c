//! Who serves what was pulled: the engine of this process, or a server beside it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;
use lm::adapters::Adapter;
use oci::with_causes;

use crate::catalog::Served;
use crate::engine::Engine;

/// A revision that is offered from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// A number that no other revision had.
    pub revision: u64,
    pub rank: i64,
    pub bytes: u64,
}

/// Why a revision is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOffered {
    /// It cannot be served, and never will be.
    Refused(String),
    /// Another time, perhaps.
    NotNow(String),
}

/// What serves adapters.
#[async_trait]
pub trait Host: Debug + Send + Sync {
    /// Checks the files of a revision and takes it up, beside what is served under the name so far.
    async fn offer(&self, name: &str, digest: &str, folder: &Path) -> Result<Offered, NotOffered>;

    /// Lets a revision go. Whoever asks from now on is sent to another one.
    async fn retire(&self, name: &str, served: &Served);

    /// Names of those that were taken up and are not there any more.
    async fn lost(&self, served: &BTreeMap<String, Served>) -> Vec<String>;
}

#[async_trait]
impl Host for Engine {
    async fn offer(&self, _: &str, _: &str, folder: &Path) -> Result<Offered, NotOffered> {
        let refused = |error: &dyn std::error::Error| NotOffered::Refused(with_causes(error));
        let (engine, place) = (self.clone(), folder.to_owned());
        let opened =
            tokio::task::spawn_blocking(move || Adapter::open(&place, &engine.requirements()));
        let opened = opened.await.map_err(|error| refused(&error))?;
        let adapter = opened.map_err(|error| refused(&error))?;
        let (rank, bytes) = (adapter.config().rank, adapter.bytes());
        let revision = Self::offer(self, adapter, folder.to_owned());
        Ok(Offered { revision, rank, bytes })
    }

    async fn retire(&self, _: &str, served: &Served) {
        Self::retire(self, served.revision);
    }

    async fn lost(&self, _: &BTreeMap<String, Served>) -> Vec<String> {
        // It is this process.
        Vec::new()
    }
}
