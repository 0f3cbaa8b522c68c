//! Keeps what is served as it is declared, while the server runs.
//!
//! Every few seconds the file of declared adapters is read, and every tag is looked up; what a controller
//! tells ([`Orders`]) is taken up at once. What is new is pulled by its digest, verified, and only then offered
//! in place of what was served under its name: by a [`Host`], which is the engine of this process or a server
//! beside it. What cannot be verified is refused with its reason, and what was served goes on being served. When
//! a registry cannot be reached, everything stays as it is; after a restart, what was served last comes from the
//! disk.

pub mod declared;
mod host;
mod known;
mod options;
mod orders;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures::future::join_all;
use lm::peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use oci::{Class, PullOptions, Root, Target, with_causes};
use tokio::sync::oneshot::Sender;

use crate::catalog::{Catalog, Entry, Served, State, now};
use crate::metrics::Common;
use declared::{Declarations, Declared, DeclaredError, Source};
pub use host::{Host, NotOffered, Offered};
use known::{Image, Known};
pub use options::AdapterOptions;
pub use orders::Orders;

/// Most files of an adapter's image.
const MOST_FILES: u64 = 10_000;

/// Follows what is declared.
#[derive(Debug)]
pub struct Adapters {
    options: AdapterOptions,
    orders: Arc<Orders>,
    known: Known,
    host: Arc<dyn Host>,
    catalog: Arc<Catalog>,
    metrics: Arc<Common>,
}

/// Adapters are followed while this lives.
#[derive(Debug)]
pub struct Following(#[expect(dead_code, reason = "its drop is the sign")] Sender<()>);

/// A revision that was found, before it is looked at.
struct Found {
    digest: String,
    folder: PathBuf,
    /// What the manifest says of it; nothing for a folder.
    annotations: BTreeMap<String, String>,
}

/// Why a revision is not taken up.
enum Trouble {
    /// The registry may answer another time.
    Unreachable(String),
    /// The revision cannot be served, and never will be.
    Refused { digest: Option<String>, reason: String },
}

impl Adapters {
    pub fn new(
        options: AdapterOptions,
        host: Arc<dyn Host>,
        catalog: Arc<Catalog>,
        metrics: Arc<Common>,
    ) -> Self {
        let known = Known::new(&options.cache);
        Self { options, orders: Arc::default(), known, host, catalog, metrics }
    }

    /// Where a controller tells what to hold.
    pub fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.orders)
    }

    /// Follows on a thread of its own, until what comes back is dropped.
    pub fn follow(self) -> std::io::Result<Following> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let follow = move || {
            runtime.block_on(async {
                tokio::select! { () = self.look_again_and_again() => {} _ = ended => {} }
            });
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("adapters".to_owned()).spawn(follow)?;
        Ok(Following(end))
    }

    async fn look_again_and_again(&self) {
        loop {
            // A pull that takes long does not hold up what is told meanwhile: it goes on where it broke off.
            tokio::select! {
                () = async { self.look().await; tokio::time::sleep(self.options.every).await } => {}
                () = self.orders.news() => {}
            }
        }
    }

    /// The newest declaration: that of the file, or what was told.
    fn declared(&self) -> Result<Declarations, DeclaredError> {
        let file = self.options.file.as_ref();
        let file = file.map(|file| (file.read)(&file.path, self.catalog.base())).transpose();
        match (file, self.orders.newest()) {
            (Ok(file), Some(told)) => {
                Ok(file.filter(|file| file.sequence > told.sequence).unwrap_or(told))
            }
            (Ok(file), None) => Ok(file.unwrap_or_default()),
            (Err(_), Some(told)) => Ok(told),
            (Err(error), None) => Err(error),
        }
    }

    /// Brings what is served to what is declared, as far as that is possible now.
    pub async fn look(&self) {
        let declared = match self.declared() {
            Ok(Declarations { sequence, adapters }) => {
                self.catalog.set_sequence(sequence);
                adapters
            }
            Err(error) => {
                // Half a file, or a mistake: what was declared before stays.
                let text = with_causes(&error);
                if self.catalog.fault().as_ref() != Some(&text) {
                    tracing::error!("{text}");
                }
                self.catalog.set_fault(Some(text));
                return;
            }
        };
        self.catalog.set_fault(None);
        for name in self.catalog.entries().into_keys() {
            if !declared.iter().any(|adapter| adapter.name == name) {
                self.withdraw(&name).await;
            }
        }
        self.miss().await;
        join_all(declared.iter().map(|adapter| self.bring(adapter))).await;
        self.catalog.set_looked();
        let entries = self.catalog.entries().into_values();
        let used: Vec<String> = entries.filter_map(|e| Some(e.served?.digest)).collect();
        for digest in &used {
            self.known.touch(digest);
        }
        self.known.prune(self.options.disk_bytes, &used);
    }

    async fn withdraw(&self, name: &str) {
        let Some(Entry { served, .. }) = self.catalog.remove(name) else { return };
        let digest = served.as_ref().map(|served| served.digest.as_str());
        self.metrics.adapter(name, digest, None);
        if let Some(served) = served {
            tracing::info!(adapter = name, "not declared any more");
            self.host.retire(name, &served).await;
        }
    }

    /// What the host has lost is taken up anew.
    async fn miss(&self) {
        let served = |(name, entry): (String, Entry)| Some((name, entry.served?));
        let served = self.catalog.entries().into_iter().filter_map(served).collect();
        for name in self.host.lost(&served).await {
            let Some(mut entry) = self.catalog.get(&name) else { continue };
            tracing::warn!(adapter = name, "it was served and is not there any more");
            self.metrics.adapter(&name, entry.served.take().map(|old| old.digest).as_deref(), None);
            (entry.state, entry.reason) = (State::Loading, None);
            self.catalog.set(&name, entry);
        }
    }

    /// One adapter's turn.
    async fn bring(&self, adapter: &Declared) {
        let source = adapter.source.text();
        let mut entry = self.catalog.get(&adapter.name).unwrap_or(Entry {
            source: source.clone(),
            served: None,
            state: State::Loading,
            reason: None,
            wanted: None,
        });
        if entry.source != source {
            // What was said of another one says nothing of this.
            (entry.state, entry.reason, entry.wanted) = (State::Loading, None, None);
            entry.source = source;
        }
        self.catalog.set(&adapter.name, entry.clone());
        let result = match &adapter.source {
            Source::Image(image) => self.image(adapter, image, &mut entry).await,
            Source::Folder(folder) => self.folder(adapter, folder, &mut entry).await,
        };
        match result {
            Ok(None) => {}
            Ok(Some(new)) => {
                let old = entry.served.replace(new);
                (entry.state, entry.reason) = (State::Serving, None);
                let served = entry.served.as_ref().map(|served| served.digest.as_str());
                let before = old.as_ref().map(|served| served.digest.as_str());
                self.metrics.adapter(&adapter.name, before, served);
                tracing::info!(adapter = adapter.name, digest = served, "served");
                self.catalog.set(&adapter.name, entry);
                if let Some(old) = old {
                    self.host.retire(&adapter.name, &old).await;
                }
                return;
            }
            Err(Trouble::Unreachable(reason)) => {
                (entry.state, entry.reason) = (State::Unreachable, Some(reason));
            }
            Err(Trouble::Refused { digest, reason }) => {
                if entry.reason.as_ref() != Some(&reason) {
                    tracing::error!(adapter = adapter.name, reason, "refused");
                    self.metrics.refused(&adapter.name);
                }
                (entry.state, entry.reason) = (State::Refused, Some(reason));
                entry.wanted = digest;
            }
        }
        self.catalog.set(&adapter.name, entry);
    }

    /// A new revision of an image; none where there is nothing new.
    async fn image(
        &self,
        adapter: &Declared,
        image: &str,
        entry: &mut Entry,
    ) -> Result<Option<Served>, Trouble> {
        let target: Target = image.parse().map_err(|error| refused(None, &error))?;
        if let Some(digest) = target.digest() {
            return self.pinned(adapter, &target, digest, entry).await;
        }
        let registry = self.options.registry_of(adapter, image).map_err(no_login)?;
        let digest = match oci::pull::resolve(&target, &registry).await {
            Ok(digest) => digest,
            Err(error) if error.class() == Class::MayPass => {
                return self.what_was_last(adapter, image, entry, &error).await;
            }
            Err(error) => return Err(refused(None, &error)),
        };
        if !is_new(entry, &digest) {
            return Ok(None);
        }
        self.pulled(adapter, &target.at_digest(&digest), &digest, &registry).await.map(Some)
    }

    /// An image that names its digest: the registry is asked only for what is not on the disk.
    async fn pinned(
        &self,
        adapter: &Declared,
        target: &Target,
        digest: &str,
        entry: &mut Entry,
    ) -> Result<Option<Served>, Trouble> {
        if !is_new(entry, digest) {
            return Ok(None);
        }
        let image = adapter.source.text();
        if let Some(Image { digest, annotations }) = self.known.last(&image) {
            let folder = self.known.place(&digest);
            return self.taken(adapter, Found { digest, folder, annotations }).await.map(Some);
        }
        let registry = self.options.registry_of(adapter, &image).map_err(no_login)?;
        self.pulled(adapter, target, digest, &registry).await.map(Some)
    }

    /// Pulls a revision by its digest, and verifies it.
    async fn pulled(
        &self,
        adapter: &Declared,
        pinned: &Target,
        digest: &str,
        registry: &oci::Options,
    ) -> Result<Served, Trouble> {
        let (place, what) = (self.known.place(digest), self.what());
        let pulled = oci::pull::pull(pinned, &place, &what, registry).await;
        let pulled = pulled.map_err(|error| match error.class() {
            Class::MayPass => Trouble::Unreachable(with_causes(&error)),
            Class::Input | Class::Refused => refused(Some(digest), &error),
        })?;
        let (folder, annotations) = (pulled.folder, pulled.annotations);
        let state = Image { digest: digest.to_owned(), annotations: annotations.clone() };
        let digest = digest.to_owned();
        let served = self.taken(adapter, Found { digest, folder, annotations }).await?;
        if let Err(error) = self.known.remember(&adapter.source.text(), state) {
            tracing::warn!("cannot remember what is served: {error}");
        }
        Ok(served)
    }

    fn what(&self) -> PullOptions {
        PullOptions {
            first: Root::Data,
            max_bytes: self.options.image_bytes,
            max_files: MOST_FILES,
        }
    }

    /// What was served last, where the registry cannot be asked and nothing is served.
    async fn what_was_last(
        &self,
        adapter: &Declared,
        image: &str,
        entry: &Entry,
        error: &oci::Error,
    ) -> Result<Option<Served>, Trouble> {
        let unreachable = Trouble::Unreachable(with_causes(error));
        if entry.served.is_some() {
            return Err(unreachable);
        }
        let Some(Image { digest, annotations }) = self.known.last(image) else {
            return Err(unreachable);
        };
        let folder = self.known.place(&digest);
        tracing::warn!(image, digest, "the registry is not reached; taken from the disk");
        self.taken(adapter, Found { digest, folder, annotations }).await.map(Some)
    }

    /// A new revision of a folder, told by size and time of its files.
    async fn folder(
        &self,
        adapter: &Declared,
        folder: &Path,
        entry: &mut Entry,
    ) -> Result<Option<Served>, Trouble> {
        let stamp = |name: &str| {
            let metadata = std::fs::metadata(folder.join(name)).ok()?;
            let time = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(format!("{}-{}", metadata.len(), time.as_nanos()))
        };
        let stamps = [ADAPTER_CONFIG, ADAPTER_WEIGHTS].map(|name| stamp(name).unwrap_or_default());
        let digest = oci::sha256(stamps.join(" ").as_bytes());
        if !is_new(entry, &digest) {
            return Ok(None);
        }
        let (folder, annotations) = (folder.to_owned(), BTreeMap::new());
        self.taken(adapter, Found { digest, folder, annotations }).await.map(Some)
    }

    /// Holds a revision against the base model, and hands it to the host.
    async fn taken(&self, adapter: &Declared, found: Found) -> Result<Served, Trouble> {
        let Found { digest, folder, annotations } = found;
        let trained_on = annotations.get(oci::image::annotation::BASE_MODEL_DIGEST);
        if let (Some(theirs), Some(ours)) = (trained_on, self.catalog.base_digest())
            && theirs != ours
        {
            let reason =
                format!("it was trained on base model {theirs}, and {ours} is served here");
            return Err(Trouble::Refused { digest: Some(digest), reason });
        }
        match self.host.offer(&adapter.name, &digest, &folder).await {
            Ok(Offered { revision, rank, bytes }) => {
                Ok(Served { revision, digest, rank, bytes, since: now() })
            }
            Err(NotOffered::Refused(reason)) => {
                Err(Trouble::Refused { digest: Some(digest), reason })
            }
            Err(NotOffered::NotNow(reason)) => Err(Trouble::Unreachable(reason)),
        }
    }
}

/// Whether a digest is neither served nor refused before.
fn is_new(entry: &mut Entry, digest: &str) -> bool {
    let before = entry.wanted.replace(digest.to_owned());
    if entry.served.as_ref().is_some_and(|served| served.digest == digest) {
        (entry.state, entry.reason) = (State::Serving, None);
        return false;
    }
    !(entry.state == State::Refused && before.as_deref() == Some(digest))
}

fn no_login(reason: String) -> Trouble {
    Trouble::Refused { digest: None, reason }
}

fn refused(digest: Option<&str>, error: &dyn std::error::Error) -> Trouble {
    Trouble::Refused { digest: digest.map(str::to_owned), reason: with_causes(error) }
}
