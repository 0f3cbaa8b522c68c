//! The work queue, as controller-runtime's `workqueue_*` tells of it.
//!
//! kube's controller does not show its queue, but all that goes in and comes out passes through our
//! hands: triggers, beginnings and ends of passes, and the times after which a pass wants the next one.
//! This follows them by the queue's own rules: an object waits once, however often it is added; it is
//! not worked on twice at a time; an earlier time takes the place of a later one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, exponential_buckets,
};

use super::CONTROLLER;
use crate::workspace::Watched;

type Key = ObjectRef<Watched>;

/// The queue's metrics, and what they are made from.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    state: Arc<Mutex<State>>,
    depth: Gauge,
    adds: IntCounter,
    retries: IntCounter,
    waited: Histogram,
    worked: Histogram,
    unfinished: Gauge,
    longest: Gauge,
}

#[derive(Debug, Default)]
struct State {
    /// Objects that wait for a worker, and since when.
    waiting: HashMap<Key, Instant>,
    /// Objects that are worked on, and since when.
    running: HashMap<Key, Instant>,
    /// Objects that come in at a time of their own.
    later: HashMap<Key, Instant>,
}

impl Queue {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = GaugeVec::new(Opts::new(name, help), LABELS)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge.with_label_values(NAMES))
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), LABELS)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter.with_label_values(NAMES))
        };
        let histogram = |name: &str, help: &str| {
            let buckets = exponential_buckets(1e-5, 10.0, 9)?;
            let options = HistogramOpts::new(name, help).buckets(buckets);
            let histogram = HistogramVec::new(options, LABELS)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram.with_label_values(NAMES))
        };
        Ok(Self {
            state: Arc::default(),
            depth: gauge("workqueue_depth", "Objects that wait for a pass")?,
            adds: counter("workqueue_adds_total", "Objects that came into the queue")?,
            retries: counter("workqueue_retries_total", "Passes that are tried again")?,
            waited: histogram("workqueue_queue_duration_seconds", "Waits for a pass")?,
            worked: histogram("workqueue_work_duration_seconds", "Lengths of passes")?,
            unfinished: gauge(
                "workqueue_unfinished_work_seconds",
                "Time that has gone into passes that have not ended, in all",
            )?,
            longest: gauge(
                "workqueue_longest_running_processor_seconds",
                "Time that has gone into the longest pass that has not ended",
            )?,
        })
    }

    /// Something happened to an object.
    pub(crate) fn added(&self, key: Key) {
        self.added_at(key, Instant::now());
    }

    fn added_at(&self, key: Key, now: Instant) {
        let mut state = self.state();
        state.later.remove(&key);
        state.waiting.entry(key).or_insert_with(|| {
            self.adds.inc();
            now
        });
    }

    /// A pass over an object begins.
    pub(super) fn started(&self, key: Key, now: Instant) {
        let mut state = self.state();
        let since = state.waiting.remove(&key).or_else(|| {
            // Its own time has come, or nobody told us of it.
            self.adds.inc();
            state.later.remove(&key)
        });
        let waited = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited.observe(waited.as_secs_f64());
        state.running.insert(key, now);
    }

    /// A pass has ended; the next one is to be after a time, if at all.
    pub(super) fn ended(&self, key: Key, now: Instant, next: Option<Duration>, has_failed: bool) {
        let mut state = self.state();
        if let Some(since) = state.running.remove(&key) {
            self.worked.observe(now.saturating_duration_since(since).as_secs_f64());
        }
        if has_failed {
            self.retries.inc();
        }
        if let Some(at) = next.and_then(|next| now.checked_add(next))
            && !state.waiting.contains_key(&key)
        {
            state.later.insert(key, at);
        }
    }

    /// An object is gone: there will be no pass.
    pub(super) fn gone(&self, key: &Key) {
        let mut state = self.state();
        state.waiting.remove(key);
        state.later.remove(key);
    }

    /// Sets what is true of one moment only.
    pub(super) fn look(&self, now: Instant) {
        let state = self.state();
        let due = state.later.values().filter(|at| **at <= now).count();
        self.depth.set((state.waiting.len() + due) as f64);
        let seconds =
            state.running.values().map(|at| now.saturating_duration_since(*at).as_secs_f64());
        self.unfinished.set(seconds.clone().sum());
        self.longest.set(seconds.fold(0.0, f64::max));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both, as controller-runtime has them since 0.20.
const LABELS: &[&str] = &["name", "controller"];
const NAMES: &[&str] = &[CONTROLLER, CONTROLLER];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::{Duration, Instant};

    use kube::runtime::reflector::ObjectRef;
    use prometheus::Registry;

    use super::{Key, Queue};

    fn key(name: &str) -> Key {
        ObjectRef::new(name).within("team")
    }

    fn depth(queue: &Queue) -> u64 {
        queue.depth.get() as u64
    }

    /// Waits once however often it is added; a change in the midst of a pass waits for its end.
    #[test]
    fn an_object_waits_once() {
        let queue = Queue::new(&Registry::new()).unwrap();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        queue.added_at(key("a"), start);
        queue.added_at(key("a"), after(1));
        queue.added_at(key("b"), after(1));
        queue.look(after(2));
        assert_eq!((queue.adds.get(), depth(&queue)), (2, 2));

        queue.started(key("a"), after(3));
        queue.added_at(key("a"), after(4));
        queue.look(after(5));
        assert_eq!((queue.adds.get(), depth(&queue)), (3, 2));
        assert!((queue.waited.get_sample_sum() - 3.0).abs() < 1e-9, "since it came in first");
        assert!((queue.longest.get() - 2.0).abs() < 1e-9);

        // It waits already, so that the time it asks for is of no use.
        queue.ended(key("a"), after(6), Some(Duration::from_secs(1)), false);
        assert!((queue.worked.get_sample_sum() - 3.0).abs() < 1e-9);
        queue.started(key("a"), after(6));
        queue.started(key("b"), after(6));
        queue.ended(key("a"), after(6), None, false);
        queue.ended(key("b"), after(6), None, false);
        queue.look(after(60));
        assert_eq!((queue.adds.get(), depth(&queue)), (3, 0));
        assert_eq!(queue.waited.get_sample_count(), 3);
    }

    /// What comes in at a time of its own is in the queue from then on.
    #[test]
    fn a_time_of_its_own() {
        let queue = Queue::new(&Registry::new()).unwrap();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        queue.added_at(key("a"), start);
        queue.started(key("a"), start);
        queue.ended(key("a"), start, Some(Duration::from_secs(10)), true);
        assert_eq!(queue.retries.get(), 1);
        queue.look(after(9));
        assert_eq!(depth(&queue), 0);
        queue.look(after(12));
        assert_eq!(depth(&queue), 1);
        queue.started(key("a"), after(12));
        assert_eq!(queue.adds.get(), 2);
        assert!((queue.waited.get_sample_sum() - 2.0).abs() < 1e-9, "since its time had come");

        queue.ended(key("a"), after(13), Some(Duration::from_secs(10)), false);
        queue.added_at(key("a"), after(14));
        queue.gone(&key("a"));
        queue.look(after(60));
        assert_eq!(depth(&queue), 0);
    }
}
