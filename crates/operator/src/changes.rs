//! Watches as the controller wants them: an error does not end them, they come back within seconds, and
//! they tell when they have begun anew.

use std::fmt::Debug;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::Resource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use tracing::info;

/// Keeps a cache by a watch, and tells of each change.
///
/// A watch that begins anew lists everything. It tells of the objects while they come, when the cache still
/// has what it had, and it tells of none that are gone. So `again` is told once the cache is up to date.
pub(crate) fn changes<K>(
    watch: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
    keep: fn(&mut K),
    cache: Writer<K>,
    again: UnboundedSender<()>,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let mut lists = 0_u32;
    let changes = watch
        .backoff(Pauses::default())
        .modify(keep)
        .reflect(cache)
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                // The controller waits for the first list by itself.
                if lists > 0 {
                    // Nobody hears it when the controller has ended.
                    let _ = again.unbounded_send(());
                }
                lists = lists.saturating_add(1);
            }
        })
        .touched_objects();
    steady(changes)
}

/// Pauses of a watch that has failed: twice as long each time, up to 5 s. The library's grow up to 30 s, and
/// a GPU that idles until the API server is heard again costs more than a request every few seconds.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        const FIRST: Duration = Duration::from_millis(800);
        const LONGEST: Duration = Duration::from_secs(5);
        let pause = FIRST.saturating_mul(1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        Some(pause.min(LONGEST))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A watch without its errors. It begins anew by itself, after a while; the controller would hold up all
/// watches for the error of one, and for longer with each.
fn steady<K>(
    watch: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static
where
    K: Send + 'static,
{
    watch.filter_map(|item| {
        std::future::ready(match item {
            Ok(changed) => Some(Ok(changed)),
            Err(error) => {
                info!(%error, "a watch begins anew");
                None
            }
        })
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use futures::channel::mpsc;
    use futures::executor::block_on_stream;
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;

    use super::*;

    fn map(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    }

    #[test]
    fn a_list_that_comes_anew_is_told_once_the_cache_has_it() {
        let first = [Event::Init, Event::InitApply(map("a")), Event::InitDone];
        let then = [Event::Apply(map("b"))];
        let anew = [Event::Init, Event::InitApply(map("a")), Event::InitDone];
        let events = first.into_iter().chain(then).chain(anew).map(Ok);
        let (cache, writer) = reflector::store();
        let (again, mut told) = mpsc::unbounded();
        let mut changes =
            block_on_stream(Box::pin(changes(stream::iter(events), |_| {}, writer, again)));
        let names: Vec<String> =
            (0..3).map(|_| changes.next().unwrap().unwrap().name_any()).collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!(cache.state().len(), 2, "the cache has what it had");
        assert!(told.try_recv().is_err(), "told before the cache has it");
        assert!(changes.next().is_none());
        assert_eq!(cache.state().len(), 1);
        assert_eq!(told.try_recv(), Ok(()));
        assert!(told.try_recv().is_err(), "told twice");
    }

    #[test]
    fn pauses_grow_to_five_seconds_and_begin_anew() {
        let mut pauses = Pauses::default();
        let first: Vec<u128> = pauses.by_ref().take(5).map(|pause| pause.as_millis()).collect();
        assert_eq!(first, [800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(Duration::from_millis(800)));
    }
}
