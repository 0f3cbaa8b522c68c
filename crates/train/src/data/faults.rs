//! Collects the faults of one group of files: all are counted, the first are kept.

use std::collections::HashSet;

use api::facts::MAX_FAULTS_SHOWN;
use api::fault::Fault;

/// Faults in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Faults {
    shown: Vec<Fault>,
    count: u64,
    once: HashSet<(Option<String>, String)>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.count += 1;
        if self.shown.len() < MAX_FAULTS_SHOWN {
            self.shown.push(fault);
        }
    }

    /// Adds a fault that each record of a table would repeat: it counts once for each file.
    pub(super) fn add_once(&mut self, fault: Fault) {
        if self.once.insert((fault.file.clone(), fault.message.clone())) {
            self.add(fault);
        }
    }

    pub(super) fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        faults.into_iter().for_each(|fault| self.add(fault));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The faults of `parts`, in that order, as the facts have them.
    pub(super) fn joined(parts: impl IntoIterator<Item = Self>) -> (Vec<Fault>, u64) {
        let (mut shown, mut count) = (Vec::new(), 0);
        for part in parts {
            shown.extend(part.shown);
            count += part.count;
        }
        shown.truncate(MAX_FAULTS_SHOWN);
        (shown, count)
    }
}
