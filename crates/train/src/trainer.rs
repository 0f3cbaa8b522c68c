//! The run, in the order in which things happen.

mod end;
mod start;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::RunSpec;

use crate::checkpoint::{Best, Checkpoints, State};
use crate::data::{Dataset, Loader};
use crate::error::RunError;
use crate::evaluate;
use crate::event::{Event, Step};
use crate::events::Events;
use crate::run_dir::{Outcome, RunDir};
use crate::runtime;
use crate::schedule;
use crate::session::{Score, Session};

/// Trains what `spec` says, or goes on where an earlier process was stopped.
///
/// Each event goes to `on_event` as it happens. Once `stop` is set, a checkpoint is written and the
/// run ends with [`RunError::Stopped`].
pub fn run(
    spec: &RunSpec,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Outcome, RunError> {
    run_on(spec, Given::default(), stop, on_event)
}

/// What a caller may have beside the specification.
#[derive(Debug, Default)]
pub struct Given {
    /// The data as they were read to plan the run.
    pub read: Option<Dataset>,
    /// The folder in which tokens are kept.
    pub cache: Option<PathBuf>,
}

/// The same, with what the caller has already.
pub fn run_on(
    spec: &RunSpec,
    given: Given,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Outcome, RunError> {
    let mut events = Events::new(on_event);
    let result = runtime::catch(|| run_in_folder(spec, given, stop, &mut events))
        .unwrap_or_else(|panic| Err(RunError::from_panic(panic.as_ref(), events.was_doing())));
    if let Err(error) = &result {
        events.failed(error);
    }
    result
}

fn run_in_folder(
    spec: &RunSpec,
    given: Given,
    stop: &AtomicBool,
    events: &mut Events<'_>,
) -> Result<Outcome, RunError> {
    let dir = RunDir::open(spec)?;
    if let Some(outcome) = dir.finished() {
        return Ok(end::replay(outcome, events));
    }
    let spec = dir.spec();
    let checkpoints = dir.checkpoints();
    let found = start::newest(&dir, &checkpoints, events)?;
    let begun = start::begin(&dir, found, given, events)?;
    let mut training = Training {
        spec,
        data: &begun.data,
        checkpoints: &checkpoints,
        stop,
        session: begun.session,
        state: begun.state,
        saved: begun.saved,
        saved_at: Instant::now(),
        pace: Pace::default(),
    };
    training.run(events)?;
    end::finish(&dir, training, &begun.files, &begun.tokenizer, events)
}

/// A run between its first and its last step.
struct Training<'a> {
    spec: &'a RunSpec,
    data: &'a Dataset,
    checkpoints: &'a Checkpoints,
    stop: &'a AtomicBool,
    session: Session,
    state: State,
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// When it was written, or this process began to train.
    saved_at: Instant,
    pace: Pace,
}

/// What this process has measured, for the time that is left.
#[derive(Default)]
struct Pace {
    steps: u64,
    step_seconds: f64,
    validation_seconds: f64,
}

impl Training<'_> {
    fn run(&mut self, events: &mut Events<'_>) -> Result<(), RunError> {
        let seed = self.spec.training.seed;
        let mut loader = Loader::new(&self.data.train, seed, self.state.loader);
        loop {
            if self.validation_is_due() && !self.validate(events)? {
                return self.leave(events);
            }
            if self.checkpoint_is_due() {
                self.save(events)?;
            }
            if self.is_complete() {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) {
                return self.leave(events);
            }
            self.step(&mut loader, events)?;
        }
    }

    fn step(&mut self, loader: &mut Loader<'_>, events: &mut Events<'_>) -> Result<(), RunError> {
        events.doing("training");
        let training = &self.spec.training;
        let learning_rate = schedule::learning_rate(training, self.state.step);
        let started = Instant::now();
        let packing = self.session.packing(training.micro_batch_tokens, true);
        let batch = loader.next(training.batch_size, packing)?;
        let score = self.session.forward_backward(&batch.micro_batches)?;
        let grad_norm = self.session.optim_step(learning_rate)?;
        let seconds = started.elapsed().as_secs_f64();

        self.pace.steps += 1;
        self.pace.step_seconds += seconds;
        self.state.step += 1;
        self.state.loader = loader.state();
        self.state.tokens += batch.tokens;
        self.state.seconds += seconds;
        events.emit(&Event::Step(Step {
            step: self.state.step,
            steps: training.steps,
            epoch: self.epoch(),
            loss: score.loss,
            grad_norm,
            learning_rate,
            token_accuracy: score.token_accuracy(),
            tokens: batch.tokens,
            tokens_per_second: batch.tokens as f64 / seconds,
            eta_seconds: self.seconds_left(),
        }))?;
        Ok(())
    }

    /// Scores the validation split; false where the caller stops the run meanwhile.
    fn validate(&mut self, events: &mut Events<'_>) -> Result<bool, RunError> {
        events.doing("scoring the validation split");
        let started = Instant::now();
        let tokens = self.spec.training.micro_batch_tokens;
        let (session, examples) = (&self.session, &self.data.validation);
        let Some(score) = evaluate::score(session, examples, tokens, self.stop, events)? else {
            return Ok(false);
        };
        let seconds = started.elapsed().as_secs_f64();
        self.pace.validation_seconds = seconds;
        self.state.validated = Some(self.state.step);
        let best = self.take_note(score);
        events.emit(&Event::Validated {
            step: self.state.step,
            epoch: self.epoch(),
            loss: score.loss,
            token_accuracy: score.token_accuracy(),
            best,
            seconds,
        })?;
        if let (true, Some(best)) = (self.has_stopped_early(), self.state.best) {
            let evaluations = self.state.without_improvement;
            let (step, best_step) = (self.state.step, best.step);
            events.emit(&Event::StoppedEarly { step, best_step, evaluations })?;
        }
        Ok(true)
    }

    /// Keeps the best loss and counts validations that brought none. The base model, before the first
    /// step, is only something to look at.
    fn take_note(&mut self, score: Score) -> bool {
        if self.state.step == 0 {
            return false;
        }
        let before = self.state.best.map_or(f64::INFINITY, |best| best.loss);
        let stopping = self.spec.evaluation.early_stopping.as_ref();
        let min_delta = stopping.map_or(0.0, |stopping| stopping.min_delta);
        let enough = before - score.loss > min_delta;
        self.state.without_improvement =
            if enough { 0 } else { self.state.without_improvement + 1 };
        let best = score.loss < before;
        if best {
            self.state.best = Some(Best { step: self.state.step, loss: score.loss });
        }
        best
    }

    fn save(&mut self, events: &mut Events<'_>) -> Result<(), RunError> {
        events.doing("writing a checkpoint");
        self.state.events = events.sync()?;
        let path = self.checkpoints.save(&self.state, |folder| self.session.save(folder))?;
        self.saved = Some(self.state.step);
        self.saved_at = Instant::now();
        events.emit(&Event::Saved { step: self.state.step, path })?;
        Ok(())
    }

    /// Ends a run that the caller stopped, so that the same command goes on from here.
    fn leave(&mut self, events: &mut Events<'_>) -> Result<(), RunError> {
        if self.saved != Some(self.state.step) && self.state.step > 0 {
            self.save(events)?;
        }
        Err(RunError::Stopped { step: self.state.step, steps: self.spec.training.steps })
    }

    fn steps_per_epoch(&self) -> u64 {
        let batch = self.spec.training.batch_size.max(1);
        self.data.train.len().div_ceil(batch).max(1) as u64
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.steps_per_epoch() as f64
    }

    /// Steps between two validations.
    fn validation_interval(&self) -> u64 {
        match self.spec.evaluation.every_steps {
            0 => self.steps_per_epoch(),
            every => every,
        }
    }

    fn validation_is_due(&self) -> bool {
        let step = self.state.step;
        let due =
            step.is_multiple_of(self.validation_interval()) || step == self.spec.training.steps;
        due && !self.data.validation.is_empty() && self.state.validated != Some(step)
    }

    /// A checkpoint is due by the count of steps, by the time, at a new best, and at the end.
    fn checkpoint_is_due(&self) -> bool {
        let step = self.state.step;
        let api::run_spec::Checkpoints { every_steps, every_seconds, .. } = self.spec.checkpoints;
        let best = self.state.best.is_some_and(|best| best.step == step);
        let counted = every_steps > 0 && step.is_multiple_of(every_steps);
        let timed =
            every_seconds > 0 && self.saved_at.elapsed() >= Duration::from_secs(every_seconds);
        let due = step > 0 && (counted || timed || best || self.is_complete());
        due && self.saved != Some(step)
    }

    fn is_complete(&self) -> bool {
        self.state.step >= self.spec.training.steps || self.has_stopped_early()
    }

    fn has_stopped_early(&self) -> bool {
        let stopping = self.spec.evaluation.early_stopping.as_ref();
        stopping.is_some_and(|stopping| self.state.without_improvement >= stopping.patience.max(1))
            && self.state.step < self.spec.training.steps
    }

    /// Time for the steps and validations to come, by what this process has measured.
    fn seconds_left(&self) -> Option<f64> {
        let left = self.spec.training.steps.saturating_sub(self.state.step);
        let validations = left.div_ceil(self.validation_interval());
        let per_step = self.pace.step_seconds / self.pace.steps as f64;
        let seconds = left as f64 * per_step + validations as f64 * self.pace.validation_seconds;
        (self.pace.steps > 1).then_some(seconds)
    }
}
