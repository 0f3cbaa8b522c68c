//! Makes the run fit into the machine: precision, micro-batch, activation checkpointing.

use std::collections::BTreeSet;

use api::run_spec::{Device, Evaluation, Precision, Quantization};
use api::{Fault, RunSpec, SplitFacts, Workspace};

use super::adapter::Chosen;
use super::fullest::fullest;
use super::length::{Length, longest};
use super::numbers::bytes;
use super::{Estimate, Made, short};
use crate::capacity::{Memory, Shape, filled, memory};
use crate::inputs::Inputs;
use crate::time::{Work, seconds};

/// Tokens at once that keep the arithmetic busy; more is hardly faster.
const CPU_TOKENS: u64 = 1024;
const GPU_TOKENS: u64 = 16_384;
/// Share of the memory up to which choices are made freely: the estimate is good to 15 %.
const COMFORT: f64 = 0.85;

/// How the run uses the machine.
pub(super) struct Fit {
    pub(super) device: Device,
    pub(super) threads: u64,
    pub(super) precision: Precision,
    pub(super) quantization: Quantization,
    pub(super) activation_checkpointing: bool,
    /// Tokens that go through the model at once.
    pub(super) tokens: u64,
    memory: Memory,
    limit: u64,
}

pub(super) fn choose(
    workspace: &Workspace,
    inputs: &Inputs,
    adapter: &Chosen,
    length: Length,
    evaluation: &Evaluation,
    made: &mut Made,
) -> Result<Fit, Vec<Fault>> {
    let stated = &workspace.hyperparameters;
    let machine = &inputs.machine;
    let gpu = machine.gpu.as_ref().filter(|_| workspace.compute.device != Device::Cpu);
    let device = if gpu.is_some() { Device::Cuda } else { Device::Cpu };
    let of_machine = gpu.map_or(machine.memory, |gpu| gpu.memory);
    let limit = workspace.compute.memory.map_or(of_machine, |stated| stated.min(of_machine));
    let threads = workspace
        .compute
        .threads
        .map_or(machine.cpus, |stated| u64::from(stated).min(machine.cpus))
        .max(1);
    let has_bf16 = machine.bf16 || gpu.is_some();
    let longest = longest(inputs).max(1);
    let wanted = wanted_tokens(inputs, length, longest, gpu.is_some());
    let mut shape = Shape {
        trainable: adapter.trainable,
        replaced: adapter.replaced,
        ranks_per_layer: adapter.ranks_per_layer,
        largest_trained: adapter.largest_trained,
        dropout: has_dropout(adapter),
        precision: stated.precision.unwrap_or(if has_bf16 {
            Precision::Bf16
        } else {
            Precision::Fp32
        }),
        quantization: quantization(workspace, inputs, made),
        activation_checkpointing: stated.activation_checkpointing.unwrap_or(false),
        tokens: stated.micro_batch_tokens.map_or(wanted, u64::from),
        longest,
        lengths: 0,
        widened: false,
        label_share: inputs.data.train.label_tokens as f64 / inputs.data.train.tokens.max(1) as f64,
        scored: 0,
        generated: generated(inputs, evaluation),
    };
    squeeze(workspace, inputs, length, &mut shape, limit);
    let memory = peak(inputs, length, &shape);
    if memory.total() > limit {
        return Err(vec![short::too_large(inputs, length, &shape, limit, adapter)]);
    }
    let fits = format!("so that {} fit into {}", bytes(memory.total()), bytes(limit));
    note(workspace, &shape, wanted, has_bf16, &fits, made);
    Ok(Fit {
        device,
        threads,
        precision: shape.precision,
        quantization: shape.quantization,
        activation_checkpointing: shape.activation_checkpointing,
        tokens: shape.tokens,
        memory,
        limit,
    })
}

/// Whole examples, enough of them to keep the arithmetic busy, and no more than a step has.
fn wanted_tokens(inputs: &Inputs, length: Length, longest: u64, on_gpu: bool) -> u64 {
    let busy = if on_gpu { GPU_TOKENS } else { CPU_TOKENS };
    busy.min(length.batch.min(inputs.data.train.examples) * longest).max(longest)
}

/// How frozen matrices are held: as stated, or as the checkpoint has them.
fn quantization(workspace: &Workspace, inputs: &Inputs, made: &mut Made) -> Quantization {
    let (stated, found) = (workspace.quantization, inputs.model.quantization);
    let (chosen, reason) = match (stated, found) {
        (Quantization::None, Quantization::None) => return Quantization::None,
        (Quantization::None, found) => (found, "as the checkpoint has it"),
        (stated, _) => (stated, "as stated"),
    };
    made.note("quantization", &chosen, reason, !stated.is_none());
    chosen
}

fn has_dropout(adapter: &Chosen) -> bool {
    matches!(&adapter.spec, api::run_spec::Adapter::Lora(lora) if lora.dropout > 0.0)
}

/// The memory of a run of this shape on these examples.
pub(super) fn peak(inputs: &Inputs, length: Length, shape: &Shape) -> Memory {
    let on_cpu = inputs.machine.gpu.is_none();
    let (lengths, widened) = match shape.precision {
        // One length is part of what every run has.
        Precision::Bf16 if on_cpu && inputs.machine.bf16 => {
            (distinct_lengths(inputs, length).saturating_sub(1), false)
        }
        Precision::Bf16 => (0, on_cpu),
        Precision::Fp32 => (0, false),
    };
    // What is kept is no longer than the run allows, whatever the data's lengths are.
    let allowed = |length: &u32| (*length).min(shape.longest as u32);
    let examples: Vec<u32> = inputs.data.train.lengths.iter().map(allowed).collect();
    // Dropout is drawn for each example by itself.
    let shared = if shape.dropout { 0 } else { inputs.data.train.shared };
    let tokens = fullest(&examples, length.batch, length.steps, shape.tokens, shared);
    let tokens = if tokens == 0 { shape.longest } else { tokens };
    // Held-out examples are scored in micro-batches as full as the budget has them.
    let most = shape.tokens.max(shape.longest);
    let scored = [&inputs.data.validation, &inputs.data.test].map(|split| scored(split, most));
    let scored = scored.into_iter().max().unwrap_or(0);
    memory(&inputs.model, &Shape { tokens, lengths, widened, scored, ..*shape })
}

/// Rows of a micro-batch that is full of a split's examples.
fn scored(split: &SplitFacts, most: u64) -> u64 {
    let tokens = most.min(split.tokens);
    let mean = split.tokens.div_ceil(split.examples.max(1)).max(1);
    tokens.saturating_sub(split.shared * (tokens / mean).saturating_sub(1)).max(tokens.min(mean))
}

/// Lengths, as attention fills them up, of the examples that the run gets to see.
fn distinct_lengths(inputs: &Inputs, length: Length) -> u64 {
    let lengths: BTreeSet<u32> =
        inputs.data.train.lengths.iter().map(|length| filled(*length)).collect();
    (lengths.len() as u64).min(length.steps.saturating_mul(length.batch))
}

/// Prompt and answer of the longest generated sequence.
fn generated(inputs: &Inputs, evaluation: &Evaluation) -> u64 {
    if evaluation.metrics.is_empty() {
        return 0;
    }
    inputs.data.test.longest + evaluation.max_new_tokens as u64
}

/// Uses less memory, cheapest means first, until the run fits or nothing is left to give up: smaller
/// micro-batches, then activation checkpointing, then bf16.
fn squeeze(workspace: &Workspace, inputs: &Inputs, length: Length, shape: &mut Shape, limit: u64) {
    let stated = &workspace.hyperparameters;
    let comfort = (limit as f64 * COMFORT) as u64;
    while peak(inputs, length, shape).total() > comfort {
        if stated.micro_batch_tokens.is_none() && shape.tokens > shape.longest {
            shape.tokens = (shape.tokens / 2).max(shape.longest);
        } else if stated.activation_checkpointing.is_none() && !shape.activation_checkpointing {
            shape.activation_checkpointing = true;
        } else if stated.precision.is_none() && shape.precision == Precision::Fp32 {
            shape.precision = Precision::Bf16;
        } else {
            return;
        }
    }
}

fn note(
    workspace: &Workspace,
    shape: &Shape,
    wanted: u64,
    has_bf16: bool,
    fits: &str,
    made: &mut Made,
) {
    let stated = &workspace.hyperparameters;
    made.choose(
        "hyperparameters.microBatchTokens",
        stated.micro_batch_tokens.map(u64::from),
        || {
            let reason = match shape.tokens {
                tokens if tokens < wanted => fits.to_owned(),
                tokens if tokens == shape.longest => "the longest example".to_owned(),
                _ => "keeps the arithmetic busy; more is hardly faster".to_owned(),
            };
            (shape.tokens, reason)
        },
    );
    made.choose("hyperparameters.precision", stated.precision, || {
        let reason = match shape.precision {
            Precision::Bf16 if has_bf16 => "the processor multiplies bf16 in hardware".to_owned(),
            Precision::Bf16 => fits.to_owned(),
            Precision::Fp32 => "the processor has no bf16 arithmetic".to_owned(),
        };
        (shape.precision, reason)
    });
    made.choose("hyperparameters.activationCheckpointing", stated.activation_checkpointing, || {
        let reason = if shape.activation_checkpointing {
            fits.to_owned()
        } else {
            "the run fits into memory without".to_owned()
        };
        (shape.activation_checkpointing, reason)
    });
}

/// What the decided run will take.
pub(super) fn estimate(
    spec: &RunSpec,
    inputs: &Inputs,
    adapter: &Chosen,
    length: Length,
    fit: &Fit,
) -> Estimate {
    let data = &inputs.data;
    let passes = length.steps as f64 / length.steps_per_epoch as f64;
    let scorings = match spec.evaluation.every_steps {
        0 => length.epochs.ceil(),
        every => (length.steps / every) as f64,
    };
    let answered = match spec.evaluation.max_examples {
        0 => data.test.examples,
        most => data.test.examples.min(most as u64),
    };
    // The tuned model answers as the data does; the base model often goes on until it is stopped.
    let answer = data.train.label_tokens as f64 / data.train.examples.max(1) as f64;
    let both = answer + spec.evaluation.max_new_tokens as f64;
    let asks = !spec.evaluation.metrics.is_empty();
    let generated_tokens = if asks { answered as f64 * both } else { 0.0 };
    let shared = if has_dropout(adapter) { 0.0 } else { data.train.shared as f64 };
    // A beginning that all share goes through the model once in each micro-batch, of which a step has one or more.
    let examples = data.train.examples as f64;
    let in_micro_batch = fit.tokens as f64 * examples / data.train.tokens.max(1) as f64;
    let repeated = 1.0 - 1.0 / in_micro_batch.min(length.batch as f64).max(1.0);
    let kept = data.train.tokens as f64 - shared * examples * repeated;
    let work = Work {
        tokens: kept * passes,
        label_tokens: data.train.label_tokens as f64 * passes,
        // Base and tuned are scored on the test split too.
        scored_tokens: data.validation.tokens as f64 * scorings + 2.0 * data.test.tokens as f64,
        generated_tokens,
        full: adapter.is_full(),
        activation_checkpointing: fit.activation_checkpointing,
        precision: fit.precision,
        threads: fit.threads,
    };
    Estimate {
        parameters: inputs.model.parameters,
        trainable_parameters: adapter.trainable,
        memory: fit.memory,
        memory_total: fit.memory.total(),
        memory_limit: fit.limit,
        seconds: seconds(&inputs.model, &inputs.machine, &work).ceil() as u64,
        training_tokens: (data.train.tokens as f64 * passes) as u64,
    }
}
