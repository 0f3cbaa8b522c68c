//! What `/metrics` answers, in Prometheus' text format.

use std::fmt::Write as _;
use std::time::Duration;

use api::termination::Stage;

use super::progress::Heard;

/// Every stage with the word that its seconds are counted under.
const STAGES: [(Stage, &str); 4] = [
    (Stage::Loading, "pull"),
    (Stage::Training, "train"),
    (Stage::Evaluating, "evaluate"),
    (Stage::Publishing, "push"),
];

/// What is counted beside what `/status` tells.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Tokens that this process has trained on.
    pub(super) tokens: u64,
    pub(super) checkpoints_failed: u64,
    checkpoints_pushed: u64,
    checkpoint_step: u64,
    /// Seconds of all pushes of checkpoints.
    checkpoint_seconds: f64,
    /// Seconds of stages that have ended.
    seconds: [f64; STAGES.len()],
}

impl Counts {
    pub(super) fn checkpoint_pushed(&mut self, step: u64, seconds: f64) {
        self.checkpoints_pushed += 1;
        self.checkpoint_step = step;
        self.checkpoint_seconds += seconds;
    }

    pub(super) fn spent(&mut self, stage: Stage, time: Duration) {
        let place = STAGES.iter().position(|(known, _)| *known == stage);
        if let Some(seconds) = place.and_then(|place| self.seconds.get_mut(place)) {
            *seconds += time.as_secs_f64();
        }
    }
}

/// The whole answer. `idle` is the time since the last sign of work, `in_stage` that since the stage began.
pub(super) fn text(heard: &Heard, idle: Duration, in_stage: Duration) -> String {
    let mut page = Page::default();
    let counts = &heard.counts;
    if let Some(step) = &heard.step {
        page.gauge("step", "Optimizer steps taken", step.step as f64);
        page.gauge("steps", "Optimizer steps in all", step.steps as f64);
        page.gauge("epoch", "Passes over the training examples", step.epoch);
        page.gauge("loss", "Training loss of the last step", step.loss);
        page.gauge("grad_norm", "Gradient norm of the last step, before clipping", step.grad_norm);
        page.gauge("learning_rate", "Learning rate of the last step", step.learning_rate);
        let help = "Tokens per second of the last step";
        page.gauge("tokens_per_second", help, step.tokens_per_second);
        if let Some(seconds) = step.eta_seconds {
            page.gauge("eta_seconds", "Seconds that the rest of the training will take", seconds);
        }
    }
    let progress = heard.status.progress.as_ref();
    if let Some(loss) = progress.and_then(|progress| progress.valid_loss) {
        page.gauge("validation_loss", "Loss of the last scoring of the validation examples", loss);
    }
    page.counter("tokens_total", "Tokens that this process has trained on", counts.tokens as f64);
    let help = "Seconds without a sign of work";
    page.gauge("idle_seconds", help, idle.as_secs_f64());
    let help = "Largest resident set of this process";
    page.gauge("peak_memory_bytes", help, train::runtime::peak_memory() as f64);
    for ((stage, word), ended) in STAGES.iter().zip(counts.seconds) {
        let is_now = heard.status.stage == *stage;
        let seconds = if is_now { ended + in_stage.as_secs_f64() } else { ended };
        page.counter(
            &format!("{word}_seconds_total"),
            &format!("Seconds of stage {stage:?}"),
            seconds,
        );
    }
    checkpoints(&mut page, heard);
    page.0
}

fn checkpoints(page: &mut Page, heard: &Heard) {
    let counts = &heard.counts;
    if let Some(step) = heard.status.resumed_from {
        let help = "The step after which an earlier attempt's checkpoint let this one begin";
        page.gauge("resumed_from_step", help, step as f64);
    }
    if counts.checkpoints_pushed > 0 {
        let help = "Steps of the newest checkpoint in the registry";
        page.gauge("checkpoint_step", help, counts.checkpoint_step as f64);
    }
    let help = "Checkpoints that were pushed";
    page.counter("checkpoint_pushes_total", help, counts.checkpoints_pushed as f64);
    let help = "Checkpoints that were not pushed";
    page.counter("checkpoint_push_failures_total", help, counts.checkpoints_failed as f64);
    let help = "Seconds that pushing checkpoints took, beside the training";
    page.counter("checkpoint_push_seconds_total", help, counts.checkpoint_seconds);
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.row(name, "gauge", help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.row(name, "counter", help, value);
    }

    fn row(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        let name = format!("anneal_trainer_{name}");
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}
