//! How far the run is: what was heard of it so far, for `/status`, `/metrics`, `/events` and `/healthz`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::TrainerStatus;
use api::termination::Stage;
use api::workspace;
use train::event::{Activity, Event, Step};

use super::metrics::Counts;
use crate::checkpoints::Told;

/// Longest time without a sign of work (a step, a batch of answers, a part of the model), where the
/// environment does not say it.
const STALL: Duration = Duration::from_mins(30);
/// Events that are kept for `/events`; all of them are in the run's folder.
const MOST_EVENTS: usize = 10_000;

/// What was heard so far. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
    stall: Duration,
}

#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: TrainerStatus,
    pub(super) counts: Counts,
    /// The last step.
    pub(super) step: Option<Step>,
    /// When the last sign of work was.
    at: Instant,
    /// When the stage began.
    since: Instant,
    events: VecDeque<String>,
    /// Events that were dropped before the first kept one.
    dropped: usize,
}

impl Progress {
    /// Nothing was heard yet. The stall limit is the environment's.
    pub(super) fn new() -> Self {
        let stated = std::env::var("ANNEAL_STALL_SECONDS").ok().and_then(|text| text.parse().ok());
        let now = Instant::now();
        let heard = Heard {
            status: TrainerStatus::default(),
            counts: Counts::default(),
            step: None,
            at: now,
            since: now,
            events: VecDeque::new(),
            dropped: 0,
        };
        let stall = stated.map_or(STALL, Duration::from_secs);
        Self(Arc::new(Shared { heard: Mutex::new(heard), changed: Condvar::new(), stall }))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an event.
    pub(super) fn hear(&self, event: &Event) {
        let line = serde_json::to_string(event).unwrap_or_default();
        let mut heard = self.lock();
        heard.at = Instant::now();
        heard.take(event);
        // Who reads this and asks then is told at least as much.
        tracing::info!(event = %line);
        if !matches!(event, Event::Progress { .. }) {
            heard.events.push_back(line);
            if heard.events.len() > MOST_EVENTS {
                heard.events.pop_front();
                heard.dropped += 1;
            }
        }
        self.0.changed.notify_all();
    }

    /// Says what is being done now.
    pub(super) fn stage(&self, stage: Stage) {
        let mut heard = self.lock();
        heard.at = Instant::now();
        heard.enter(stage);
    }

    /// Bytes came, or went.
    pub(super) fn is_at_work(&self) {
        self.lock().at = Instant::now();
    }

    /// Something that a user should know.
    pub(super) fn warn(&self, message: String, hint: Option<String>) {
        self.hear(&Event::Warning { message, hint });
    }

    /// Takes note of what became of a checkpoint.
    pub(super) fn pushed(&self, told: Told) {
        match told {
            Told::Pushed { checkpoint, seconds } => {
                tracing::info!(
                    step = checkpoint.step,
                    digest = checkpoint.digest,
                    "checkpoint pushed"
                );
                let mut heard = self.lock();
                heard.counts.checkpoint_pushed(checkpoint.step, seconds);
                heard.status.checkpoint = Some(checkpoint);
            }
            Told::Failed { step, error } => {
                self.lock().counts.checkpoints_failed += 1;
                let message = format!("the checkpoint of step {step} was not pushed: {error}");
                self.warn(message, Some("the next one is tried again".to_owned()));
            }
        }
    }

    /// An earlier attempt's checkpoint is in the registry.
    pub(super) fn found(&self, checkpoint: workspace::CheckpointStatus) {
        self.lock().status.checkpoint = Some(checkpoint);
    }

    /// What was heard last.
    pub(super) fn status(&self) -> TrainerStatus {
        let heard = self.lock();
        TrainerStatus { idle_seconds: Some(heard.at.elapsed().as_secs()), ..heard.status.clone() }
    }

    /// For `/metrics`.
    pub(super) fn metrics(&self) -> String {
        let heard = self.lock();
        super::metrics::text(&heard, heard.at.elapsed(), heard.since.elapsed())
    }

    /// How long nothing has happened, where that is longer than it may be. A push waits for the registry, and
    /// has limits of its own.
    pub(super) fn stalled(&self) -> Option<Duration> {
        let heard = self.lock();
        let idle = heard.at.elapsed();
        (idle > self.0.stall && heard.status.stage != Stage::Publishing).then_some(idle)
    }

    /// Events from the number `next` on, and the number of the one after them. Waits up to `patience`
    /// for one to come.
    pub(super) fn events(&self, next: usize, patience: Duration) -> (Vec<String>, usize) {
        let none_yet = |heard: &mut Heard| heard.dropped + heard.events.len() <= next;
        let waited = self.0.changed.wait_timeout_while(self.lock(), patience, none_yet);
        let heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        let skip = next.saturating_sub(heard.dropped);
        (heard.events.iter().skip(skip).cloned().collect(), heard.dropped + heard.events.len())
    }
}

impl Heard {
    fn enter(&mut self, stage: Stage) {
        if self.status.stage != stage {
            self.counts.spent(self.status.stage, self.since.elapsed());
            self.since = Instant::now();
            self.status.stage = stage;
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Step(step) => self.step(step),
            Event::Validated { loss, .. } => {
                if let Some(progress) = &mut self.status.progress {
                    progress.valid_loss = Some(*loss);
                }
            }
            Event::Resumed { step, .. } => self.status.resumed_from = Some(*step),
            Event::Warning { message, .. } => self.status.warning = Some(message.clone()),
            Event::Progress {
                what: Activity::AnsweringBase | Activity::AnsweringTuned, ..
            } => self.enter(Stage::Evaluating),
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        self.enter(Stage::Training);
        self.counts.tokens += step.tokens;
        self.step = Some(*step);
        let valid_loss = self.status.progress.as_ref().and_then(|before| before.valid_loss);
        self.status.progress = Some(workspace::Progress {
            summary: format!("{}/{}", step.step, step.steps),
            step: step.step,
            total_steps: step.steps,
            train_loss: Some(step.loss),
            valid_loss,
            tokens_per_second: Some(step.tokens_per_second),
            eta_seconds: step.eta_seconds.map(|seconds| seconds.round() as u64),
        });
    }
}
