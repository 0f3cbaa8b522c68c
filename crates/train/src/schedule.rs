//! The learning rate of each step: what `transformers.get_scheduler` gives.

use api::run_spec::{Schedule, Training};

/// The learning rate of an optimizer step.
///
/// `step` counts from 0. Warm-up starts at 0, so the first step of a warmed-up run changes nothing,
/// just as with transformers.
pub fn learning_rate(training: &Training, step: u64) -> f64 {
    training.learning_rate * factor(training.schedule, training.warmup_steps, training.steps, step)
}

/// The share of the peak learning rate at `step`.
pub(crate) fn factor(schedule: Schedule, warmup: u64, steps: u64, step: u64) -> f64 {
    if step < warmup {
        return step as f64 / warmup.max(1) as f64;
    }
    let decay_steps = steps.saturating_sub(warmup).max(1) as f64;
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => steps.saturating_sub(step) as f64 / decay_steps,
        Schedule::Cosine => {
            let progress = (step - warmup) as f64 / decay_steps;
            (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
        }
    }
}
