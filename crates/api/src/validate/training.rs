//! Rules of what is trained and how.

use super::Faults;
use crate::run_spec::Quantization;
use crate::valid::{Adapter, Hyperparameters, LearningRate, Length, Lora, Warmup};
use crate::workspace::{AdapterSpec, FineTuneWorkspaceSpec, HyperparametersSpec, LoraSpec};

pub(super) fn adapter(raw: Option<&AdapterSpec>, faults: &mut Faults) -> Option<Adapter> {
    let Some(raw) = raw else { return Some(Adapter::Lora(lora(&LoraSpec::default(), faults))) };
    let field = "spec.adapter";
    faults.one_of(field, &[("lora", raw.lora.is_some()), ("full", raw.full.is_some())]);
    match (&raw.lora, &raw.full) {
        (Some(raw), None) => Some(Adapter::Lora(lora(raw, faults))),
        (None, Some(_)) => Some(Adapter::Full),
        _ => None,
    }
}

fn lora(raw: &LoraSpec, faults: &mut Faults) -> Lora {
    if raw.alpha == Some(0.0) {
        let hint = "an adapter that is scaled by 0 changes nothing: 32 is usual";
        faults.add("spec.adapter.lora.alpha", "must be above 0", hint);
    }
    if raw.dropout == Some(1.0) {
        let hint = "an adapter with no input learns nothing: 0.05 is usual";
        faults.add("spec.adapter.lora.dropout", "must be below 1", hint);
    }
    let lists = [
        ("targetModules", raw.target_modules.as_deref().unwrap_or_default()),
        ("excludeModules", &raw.exclude_modules),
        ("modulesToSave", &raw.modules_to_save),
    ];
    for (name, list) in lists {
        for (index, module) in
            list.iter().enumerate().filter(|(_, module)| module.trim().is_empty())
        {
            let field = format!("spec.adapter.lora.{name}[{index}]");
            faults.add(
                &field,
                format!("`{module}` names no module"),
                "write a name such as `q_proj`",
            );
        }
    }
    Lora {
        rank: raw.rank,
        alpha: raw.alpha,
        dropout: raw.dropout,
        target_modules: raw.target_modules.clone(),
        exclude_modules: raw.exclude_modules.clone(),
        rslora: raw.rslora,
        bias: raw.bias,
        modules_to_save: raw.modules_to_save.clone(),
    }
}

pub(super) fn quantization(spec: &FineTuneWorkspaceSpec, faults: &mut Faults) -> Quantization {
    let stated = spec.quantization.unwrap_or_default();
    if !stated.is_none() && spec.adapter.as_ref().is_some_and(|adapter| adapter.full.is_some()) {
        let hint = "train an adapter (`adapter: {lora: {}}`), or remove quantization";
        let message = "every weight is trained, and none is left to be quantized";
        faults.add("spec.quantization", message, hint);
    }
    stated
}

pub(super) fn hyperparameters(
    raw: Option<&HyperparametersSpec>,
    faults: &mut Faults,
) -> Hyperparameters {
    let raw = raw.cloned().unwrap_or_default();
    both_set(&raw, faults);
    above_zero(&raw, faults);
    if let (Some(warmup), Some(steps)) = (raw.warmup_steps, raw.max_steps)
        && warmup > steps
    {
        let hint = "lower warmupSteps, or use warmupRatio: 0.05 is usual";
        let message =
            format!("{warmup} steps of warm-up are more than the {steps} of the whole run");
        faults.add("spec.hyperparameters.warmupSteps", message, hint);
    }
    if let (Some(tokens), Some(longest)) = (raw.micro_batch_tokens, raw.max_sequence_length)
        && tokens < longest
    {
        let hint = "raise microBatchTokens, or lower maxSequenceLength";
        let message =
            format!("{tokens} tokens do not hold an example of maxSequenceLength {longest}");
        faults.add("spec.hyperparameters.microBatchTokens", message, hint);
    }
    Hyperparameters {
        length: raw.epochs.map(Length::Epochs).or(raw.max_steps.map(Length::Steps)),
        batch_size: raw.batch_size,
        micro_batch_tokens: raw.micro_batch_tokens,
        learning_rate: match raw.learning_rate {
            Some(rate) => LearningRate::Exactly(rate),
            None => LearningRate::Times(raw.learning_rate_multiplier.unwrap_or(1.0)),
        },
        schedule: raw.schedule,
        warmup: raw.warmup_steps.map(Warmup::Steps).or(raw.warmup_ratio.map(Warmup::Ratio)),
        weight_decay: raw.weight_decay,
        adam_beta1: raw.adam_beta1,
        adam_beta2: raw.adam_beta2,
        adam_epsilon: raw.adam_epsilon,
        max_grad_norm: raw.max_grad_norm,
        max_sequence_length: raw.max_sequence_length,
        precision: raw.precision,
        activation_checkpointing: raw.activation_checkpointing,
        seed: raw.seed,
    }
}

/// Pairs that say the same thing twice: one would have to win, and which one is not for us to say.
fn both_set(raw: &HyperparametersSpec, faults: &mut Faults) {
    let pairs = [
        ("epochs", raw.epochs.is_some(), "maxSteps", raw.max_steps.is_some(), "how long to train"),
        (
            "learningRate",
            raw.learning_rate.is_some(),
            "learningRateMultiplier",
            raw.learning_rate_multiplier.is_some(),
            "how fast to learn",
        ),
        (
            "warmupSteps",
            raw.warmup_steps.is_some(),
            "warmupRatio",
            raw.warmup_ratio.is_some(),
            "how long to warm up",
        ),
    ];
    for (first, has_first, second, has_second, what) in pairs {
        if has_first && has_second {
            let message = format!("both {first} and {second} say {what}");
            faults.add(&format!("spec.hyperparameters.{second}"), message, "remove one of them");
        }
    }
}

/// Numbers whose zero is in the schema's range and means nothing.
fn above_zero(raw: &HyperparametersSpec, faults: &mut Faults) {
    let numbers = [
        ("epochs", raw.epochs, "1 is one pass over the data"),
        ("learningRate", raw.learning_rate, "remove it to have one chosen"),
        (
            "learningRateMultiplier",
            raw.learning_rate_multiplier,
            "1 leaves the chosen learning rate as it is",
        ),
        ("adamEpsilon", raw.adam_epsilon, "1e-8 is usual"),
    ];
    for (name, value, hint) in numbers {
        if value == Some(0.0) {
            faults.add(&format!("spec.hyperparameters.{name}"), "must be above 0", hint);
        }
    }
    for (name, value) in [("adamBeta1", raw.adam_beta1), ("adamBeta2", raw.adam_beta2)] {
        if value == Some(1.0) {
            let hint = "remove it to have AdamW's usual value";
            faults.add(&format!("spec.hyperparameters.{name}"), "must be below 1", hint);
        }
    }
}
