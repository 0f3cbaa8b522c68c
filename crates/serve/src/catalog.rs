//! The models that can be asked for by name, and how far the declared adapters are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The base model and the adapters beside it.
#[derive(Debug)]
pub struct Catalog {
    base: String,
    base_digest: Option<String>,
    since: u64,
    adapters: RwLock<BTreeMap<String, Entry>>,
    fault: RwLock<Option<String>>,
    /// Whether the declared adapters have been looked at once.
    looked: AtomicBool,
    /// Whether everything that was declared at the start is served, or was looked at and refused.
    complete: AtomicBool,
    /// The number of the declaration that is gone by.
    sequence: AtomicU64,
}

/// A declared adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was declared: an image or a folder.
    pub source: String,
    pub served: Option<Served>,
    pub state: State,
    /// Why it is as it is, where something is wrong.
    pub reason: Option<String>,
    /// The digest that is declared now, as far as it is known.
    pub wanted: Option<String>,
}

/// How far a declared adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known yet.
    Loading,
    /// What is declared is served.
    Serving,
    /// What is declared cannot be served; an older revision may be.
    Refused,
    /// What is declared cannot be found out now; an older revision may be served.
    Unreachable,
}

/// A revision that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub revision: u64,
    pub digest: String,
    pub rank: i64,
    pub bytes: u64,
    pub since: u64,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "Loading",
            Self::Serving => "Serving",
            Self::Refused => "Refused",
            Self::Unreachable => "Unreachable",
        }
    }
}

impl Catalog {
    pub fn new(base: String, base_digest: Option<String>) -> Self {
        let (adapters, fault) = (RwLock::default(), RwLock::default());
        let (looked, complete) = (AtomicBool::new(false), AtomicBool::new(false));
        let sequence = AtomicU64::new(0);
        Self { base, base_digest, since: now(), adapters, fault, looked, complete, sequence }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn base_digest(&self) -> Option<&str> {
        self.base_digest.as_deref()
    }

    /// When the server started, in seconds since 1970.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// The revision to use for a model's name: 0 for the base.
    pub fn find(&self, name: &str) -> Option<u64> {
        if name == self.base {
            return Some(0);
        }
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        Some(adapters.get(name)?.served.as_ref()?.revision)
    }

    /// All declared adapters.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.adapters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names that can be asked for, the base first.
    pub fn names(&self) -> Vec<String> {
        let served = self.entries().into_iter().filter(|(_, entry)| entry.served.is_some());
        [self.base.clone()].into_iter().chain(served.map(|(name, _)| name)).collect()
    }

    /// What is wrong with the file of declared adapters, if anything is.
    pub fn fault(&self) -> Option<String> {
        self.fault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_fault(&self, fault: Option<String>) {
        *self.fault.write().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// What of the declared adapters is missing before the first request; nothing from the moment on at which
    /// everything that was declared is served, or was looked at and refused.
    pub fn missing(&self) -> Option<String> {
        if !self.looked.load(Ordering::Acquire) {
            return Some(
                self.fault().unwrap_or_else(|| "adapters are being looked for".to_owned()),
            );
        }
        // An adapter that is added later is no reason to stop answering for the others.
        if self.complete.load(Ordering::Acquire) {
            return None;
        }
        let is_missing =
            |(_, entry): &(String, Entry)| entry.served.is_none() && entry.state != State::Refused;
        let Some((name, entry)) = self.entries().into_iter().find(is_missing) else {
            self.complete.store(true, Ordering::Release);
            return None;
        };
        let reason = entry.reason.unwrap_or_else(|| "it is being fetched".to_owned());
        Some(format!("adapter `{name}` is not loaded: {reason}"))
    }

    pub(crate) fn set_looked(&self) {
        self.looked.store(true, Ordering::Release);
    }

    /// The number of the declaration that is gone by.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    pub(crate) fn set_sequence(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Release);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Entry> {
        self.adapters.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn set(&self, name: &str, entry: Entry) {
        let mut adapters = self.adapters.write().unwrap_or_else(PoisonError::into_inner);
        adapters.insert(name.to_owned(), entry);
    }

    pub(crate) fn remove(&self, name: &str) -> Option<Entry> {
        self.adapters.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
