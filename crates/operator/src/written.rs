//! Passes that do not go back in time: the watch may show a status that is older than the one that the last
//! pass wrote, and what only the newer one remembers would be lost.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The versions that were written and that the watch has not shown yet, by object, and since when.
///
/// Versions are numbers that grow (KEP-5504). Where one is no number, nothing is waited for.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<HashMap<String, (u64, Instant)>>);

/// Longest wait: a cluster that is restored from an older state never shows what was written before.
const PATIENCE: Duration = Duration::from_secs(30);

impl Written {
    /// Remembers what the API server answered to a write.
    pub(crate) fn note(&self, written: &ObjectMeta) {
        let version = written.resource_version.as_ref().and_then(|version| version.parse().ok());
        if let Some((object, version)) = written.uid.clone().zip(version) {
            self.all().insert(object, (version, Instant::now()));
        }
    }

    /// Whether what the watch shows is older than what was written.
    pub(crate) fn is_newer_than(&self, shown: &ObjectMeta) -> bool {
        let object = shown.uid.as_deref().unwrap_or_default();
        let mut all = self.all();
        let Some((written, at)) = all.get(object) else { return false };
        let shown: Option<u64> = shown.resource_version.as_ref().and_then(|one| one.parse().ok());
        if shown.is_some_and(|shown| shown < *written) && at.elapsed() < PATIENCE {
            return true;
        }
        all.remove(object);
        false
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, (u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::Written;

    fn at(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_pass_waits_until_the_watch_shows_what_the_last_one_wrote() {
        let written = Written::default();
        assert!(!written.is_newer_than(&at("a", "9")));
        written.note(&at("a", "10"));
        assert!(written.is_newer_than(&at("a", "9")));
        assert!(!written.is_newer_than(&at("b", "9")));
        assert!(!written.is_newer_than(&at("a", "10")));
        assert!(!written.is_newer_than(&at("a", "9")), "it was forgotten once it was shown");
    }

    #[test]
    fn versions_that_are_no_numbers_hold_nothing_up() {
        let written = Written::default();
        written.note(&at("a", "x"));
        assert!(!written.is_newer_than(&at("a", "9")));
        written.note(&at("a", "10"));
        assert!(!written.is_newer_than(&at("a", "x")));
    }
}
