//! The optimizer's numbers: learning rate, schedule, warm-up, decay.

use api::run_spec::{Adapter, Schedule, Training};
use api::valid::{LearningRate, Warmup};
use api::{Fault, ModelFacts, Workspace};

use super::adapter::Chosen;
use super::fit::Fit;
use super::length::Length;
use super::numbers::two_digits;
use super::{Made, fault};
use crate::inputs::Inputs;

/// Learning rate of full fine-tuning at the width below; smaller models take larger steps.
const BASE_RATE: f64 = 5e-5;
const BASE_WIDTH: f64 = 2000.0;
/// An adapter's best learning rate against that of full fine-tuning, and in very short runs
/// (`LoRA` Without Regret: about 10 and 15).
const ADAPTER_FACTOR: f64 = 10.0;
const SHORT_RUN_FACTOR: f64 = 15.0;
const SHORT_RUN: u64 = 100;
/// Share of the steps in which the learning rate rises, and the most steps that takes.
const WARMUP: f64 = 0.05;
const MOST_WARMUP: u64 = 100;

/// The optimizer's numbers.
pub(super) struct Rate {
    peak: f64,
    schedule: Schedule,
    warmup_steps: u64,
    weight_decay: f64,
    betas: (f64, f64),
    epsilon: f64,
    max_grad_norm: f64,
}

pub(super) fn choose(
    workspace: &Workspace,
    inputs: &Inputs,
    adapter: &Chosen,
    length: Length,
    made: &mut Made,
) -> Result<Rate, Vec<Fault>> {
    let stated = &workspace.hyperparameters;
    let peak = learning_rate(stated.learning_rate, &inputs.model, adapter, length, made);
    let schedule = made.choose("hyperparameters.schedule", stated.schedule, || {
        (
            Schedule::Linear,
            "falls to zero, so that the run ends settled; transformers' default".to_owned(),
        )
    });
    let warmup_steps = warmup(stated.warmup, length, made)?;
    let weight_decay =
        made.choose("hyperparameters.weightDecay", stated.weight_decay, || match adapter.spec {
            Adapter::Full => (0.01, "AdamW's usual decay".to_owned()),
            Adapter::Lora(_) => (0.0, "an adapter starts at nothing and stays small".to_owned()),
        });
    let max_grad_norm = made.choose("hyperparameters.maxGradNorm", stated.max_grad_norm, || {
        (1.0, "keeps one odd batch from undoing the rest; transformers' default".to_owned())
    });
    Ok(Rate {
        peak,
        schedule,
        warmup_steps,
        weight_decay,
        betas: (stated.adam_beta1.unwrap_or(0.9), stated.adam_beta2.unwrap_or(0.999)),
        epsilon: stated.adam_epsilon.unwrap_or(1e-8),
        max_grad_norm,
    })
}

fn learning_rate(
    stated: LearningRate,
    model: &ModelFacts,
    adapter: &Chosen,
    length: Length,
    made: &mut Made,
) -> f64 {
    let factor = match adapter.spec {
        Adapter::Full => 1.0,
        Adapter::Lora(_) if length.steps < SHORT_RUN => SHORT_RUN_FACTOR,
        Adapter::Lora(_) => ADAPTER_FACTOR,
    };
    let width = model.hidden_size.max(1) as f64;
    let best = BASE_RATE * factor * (BASE_WIDTH / width).sqrt();
    let (given, times) = match stated {
        LearningRate::Exactly(rate) => (Some(rate), 1.0),
        LearningRate::Times(times) => (None, times),
    };
    let rate = made.choose("hyperparameters.learningRate", given, || {
        let full = format!("{BASE_RATE:e} at width {BASE_WIDTH}, here {width}");
        let reason = if adapter.is_full() {
            full
        } else {
            format!("{factor} times that of full fine-tuning ({full})")
        };
        let is_multiplied = (times - 1.0).abs() > f64::EPSILON;
        let multiplier =
            if is_multiplied { format!(", times the stated {times}") } else { String::new() };
        (two_digits(best * times), reason + &multiplier)
    });
    if rate > 10.0 * best {
        let message =
            format!("{rate:e} is far above the {:e} that would be chosen", two_digits(best));
        made.warn("hyperparameters.learningRate", message, "remove it to have one chosen");
    }
    rate
}

fn warmup(stated: Option<Warmup>, length: Length, made: &mut Made) -> Result<u64, Vec<Fault>> {
    let field = "hyperparameters.warmupSteps";
    let steps = length.steps;
    let given = match stated {
        Some(Warmup::Steps(warmup)) if warmup > steps => {
            let message =
                format!("{warmup} steps of warm-up are more than the {steps} of the whole run");
            let hint = "lower it, use warmupRatio, or train longer";
            return Err(vec![fault(&format!("spec.{field}"), message, hint)]);
        }
        Some(Warmup::Steps(warmup)) => Some(warmup),
        Some(Warmup::Ratio(ratio)) => Some((ratio * steps as f64).ceil() as u64),
        None => None,
    };
    Ok(made.choose(field, given, || {
        let warmup = ((WARMUP * steps as f64).ceil() as u64).min(MOST_WARMUP);
        (warmup, format!("{} % of {steps} steps, at most {MOST_WARMUP}", WARMUP * 100.0))
    }))
}

impl Rate {
    pub(super) fn training(&self, length: Length, fit: &Fit, seed: u64) -> Training {
        Training {
            steps: length.steps,
            epochs: length.epochs,
            batch_size: length.batch as usize,
            micro_batch_tokens: fit.tokens as usize,
            learning_rate: self.peak,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay,
            adam_beta1: self.betas.0,
            adam_beta2: self.betas.1,
            adam_epsilon: self.epsilon,
            max_grad_norm: self.max_grad_norm,
            precision: fit.precision,
            quantization: fit.quantization,
            activation_checkpointing: fit.activation_checkpointing,
            seed,
        }
    }
}
