//! How long an example may be, how many go into a step, and how many steps there are.

use api::Workspace;
use api::valid::Length as Stated;

use super::Made;
use super::numbers::{grouped, power_of_two};
use crate::inputs::Inputs;

/// Steps that a run should have at least, for the learning rate to do its rise and fall.
const ENOUGH_STEPS: u64 = 200;
/// More passes than this learn small data by heart.
const MOST_EPOCHS: u64 = 8;
/// Steps that an epoch should have at least.
const STEPS_PER_EPOCH: u64 = 32;
/// Larger batches cost adapters more than they give (`LoRA` Without Regret).
const MOST_BATCH: u64 = 16;
const LARGE_BATCH: u64 = 64;

/// How much is trained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) batch: u64,
    pub(super) steps: u64,
    pub(super) epochs: f64,
    pub(super) steps_per_epoch: u64,
}

/// The longest example that the run has to hold.
pub(super) fn longest_allowed(workspace: &Workspace, inputs: &Inputs, made: &mut Made) -> usize {
    let given = workspace.hyperparameters.max_sequence_length.map(|length| length as usize);
    made.choose("hyperparameters.maxSequenceLength", given, || {
        let longest = longest(inputs);
        (
            longest as usize,
            format!(
                "the longest example; the model's context is {}",
                grouped(inputs.model.context)
            ),
        )
    })
}

/// Tokens of the longest example of any split.
pub(super) fn longest(inputs: &Inputs) -> u64 {
    let data = &inputs.data;
    data.train.longest.max(data.validation.longest).max(data.test.longest)
}

pub(super) fn choose(workspace: &Workspace, inputs: &Inputs, made: &mut Made) -> Length {
    let examples = inputs.data.train.examples;
    let given = workspace.hyperparameters.batch_size.map(u64::from);
    let batch = made.choose("hyperparameters.batchSize", given, || {
        let batch = power_of_two(examples / STEPS_PER_EPOCH).min(MOST_BATCH);
        let reason = match batch {
            MOST_BATCH => {
                "adapters learn less from larger batches (LoRA Without Regret)".to_owned()
            }
            _ => format!(
                "about {STEPS_PER_EPOCH} steps in each pass over {} examples",
                grouped(examples)
            ),
        };
        (batch, reason)
    });
    warn_of_batch(batch, examples, made);
    let steps_per_epoch = examples.div_ceil(batch);
    let epochs = match workspace.hyperparameters.length {
        Some(Stated::Steps(steps)) => steps as f64 / steps_per_epoch as f64,
        Some(Stated::Epochs(epochs)) => epochs,
        None => ENOUGH_STEPS.div_ceil(steps_per_epoch).clamp(1, MOST_EPOCHS) as f64,
    };
    let steps = match workspace.hyperparameters.length {
        Some(Stated::Steps(steps)) => steps,
        _ => ((epochs * steps_per_epoch as f64).ceil() as u64).max(1),
    };
    let per_epoch = format!(
        "{} a pass of {} examples, {batch} at a time",
        grouped(steps_per_epoch),
        grouped(examples)
    );
    match workspace.hyperparameters.length {
        Some(Stated::Steps(_)) => {
            made.note("hyperparameters.maxSteps", &steps, "as stated", true);
            made.note("hyperparameters.epochs", &two_places(epochs), per_epoch, false);
        }
        stated => {
            let reason = format!("at least {ENOUGH_STEPS} steps, in at most {MOST_EPOCHS} passes");
            let given = stated.map(|_| epochs);
            made.choose("hyperparameters.epochs", given, || (epochs, reason));
            made.note("hyperparameters.maxSteps", &steps, per_epoch, false);
        }
    }
    Length { batch, steps, epochs, steps_per_epoch }
}

fn two_places(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn warn_of_batch(batch: u64, examples: u64, made: &mut Made) {
    let field = "hyperparameters.batchSize";
    if batch > examples {
        let message = format!(
            "a batch of {batch} is more than the {examples} examples: each step takes them all"
        );
        made.warn(field, message, "lower it, or remove it to have one chosen");
    } else if batch >= LARGE_BATCH {
        let message = format!(
            "a batch of {batch} usually learns less than a smaller one from the same examples"
        );
        made.warn(field, message, "8 to 32 is usual for adapters");
    }
}
