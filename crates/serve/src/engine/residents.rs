//! The adapters that the engine knows: which are in memory, which could be read again, which may go.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lm::adapters::Adapter;

/// How long a retired adapter stays at least: a request that found its revision just before is on its way.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Resident {
    /// Absent while it is not in memory.
    adapter: Option<Rc<Adapter>>,
    bytes: u64,
    folder: PathBuf,
    used: u64,
    retired: Option<Instant>,
}

/// Adapters by revision, at most so many bytes of them beyond those in use.
#[derive(Debug)]
pub(super) struct Residents {
    all: HashMap<u64, Resident>,
    limit: u64,
    clock: u64,
}

/// What there is of a revision.
#[derive(Debug)]
pub(super) enum Found {
    Here(Rc<Adapter>),
    /// In this folder only.
    Away(PathBuf),
    Gone,
}

impl Residents {
    pub(super) fn new(limit: u64) -> Self {
        Self { all: HashMap::new(), limit, clock: 0 }
    }

    pub(super) fn offer(&mut self, revision: u64, adapter: Adapter, folder: PathBuf) {
        self.clock += 1;
        let bytes = adapter.bytes();
        let adapter = Some(Rc::new(adapter));
        let used = self.clock;
        self.all.insert(revision, Resident { adapter, bytes, folder, used, retired: None });
        self.sweep();
    }

    /// Puts back what was read again.
    pub(super) fn restore(&mut self, revision: u64, adapter: Adapter) {
        if let Some(resident) = self.all.get_mut(&revision) {
            self.clock += 1;
            resident.used = self.clock;
            resident.bytes = adapter.bytes();
            resident.adapter = Some(Rc::new(adapter));
        }
    }

    pub(super) fn retire(&mut self, revision: u64) {
        if let Some(resident) = self.all.get_mut(&revision) {
            resident.retired.get_or_insert_with(Instant::now);
        }
        self.sweep();
    }

    pub(super) fn find(&mut self, revision: u64) -> Found {
        self.clock += 1;
        match self.all.get_mut(&revision) {
            None => Found::Gone,
            Some(resident) => {
                resident.used = self.clock;
                match &resident.adapter {
                    Some(adapter) => Found::Here(Rc::clone(adapter)),
                    None => Found::Away(resident.folder.clone()),
                }
            }
        }
    }

    /// Drops what is retired and unused, and of the rest the longest unused until the limit is kept.
    pub(super) fn sweep(&mut self) {
        let idle = |resident: &Resident| {
            resident.adapter.as_ref().is_none_or(|adapter| Rc::strong_count(adapter) == 1)
        };
        self.all.retain(|_, resident| {
            let over = resident.retired.is_some_and(|since| since.elapsed() >= GRACE);
            !(over && idle(resident))
        });
        while self.bytes() > self.limit {
            let mut unused: Vec<&mut Resident> = self
                .all
                .values_mut()
                .filter(|resident| resident.adapter.is_some() && idle(resident))
                .collect();
            // The one that came last stays, so that it can be used at all.
            unused.sort_by_key(|resident| resident.used);
            match unused.as_mut_slice() {
                [oldest, _, ..] => oldest.adapter = None,
                [] | [_] => break,
            }
        }
    }

    /// When to sweep again, though nothing happens.
    pub(super) fn again(&self) -> Option<Duration> {
        self.all.values().any(|resident| resident.retired.is_some()).then_some(GRACE)
    }

    /// Bytes of adapters in memory.
    pub(super) fn bytes(&self) -> u64 {
        let here = self.all.values().filter(|resident| resident.adapter.is_some());
        here.map(|resident| resident.bytes).sum()
    }

    pub(super) fn count(&self) -> usize {
        self.all.values().filter(|resident| resident.adapter.is_some()).count()
    }
}
