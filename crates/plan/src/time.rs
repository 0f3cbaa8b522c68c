//! How long a run takes, roughly: arithmetic over the rate at which the machine does it.

use api::run_spec::Precision;
use api::{MachineFacts, ModelFacts};

/// Floating-point operations per second and CPU thread that a training step reaches, all told.
const CPU_FP32: f64 = 80e9;
/// The same in bf16, where the processor multiplies it in hardware.
const CPU_BF16: f64 = 140e9;
/// The same of a GPU.
const GPU_BF16: f64 = 120e12;
const GPU_FP32: f64 = 20e12;
/// A generated token moves all weights for few operations: its rate is that of training divided by this.
const GENERATION_PENALTY: f64 = 4.0;
/// Start of the process and load of the model, in seconds.
const START: f64 = 3.0;

/// What of a run decides its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Tokens and label tokens of all training steps.
    pub tokens: f64,
    pub label_tokens: f64,
    /// Tokens of all scorings of the validation split.
    pub scored_tokens: f64,
    /// Tokens that are generated, by base and tuned together.
    pub generated_tokens: f64,
    /// All weights are trained, and not a small part.
    pub full: bool,
    pub activation_checkpointing: bool,
    pub precision: Precision,
    pub threads: u64,
}

/// Seconds that the work takes.
pub fn seconds(model: &ModelFacts, machine: &MachineFacts, work: &Work) -> f64 {
    let head = (model.vocabulary * model.hidden_size) as f64;
    let embeddings = if model.tied_embeddings { head } else { 2.0 * head };
    let body = (model.parameters as f64 - embeddings).max(0.0);
    // Two operations per weight and token forward, two for the gradient of the input, and two for that of
    // the weights where they are trained; one forward pass more where activations are made again.
    let passes =
        2.0 + f64::from(u8::from(work.full)) + f64::from(u8::from(work.activation_checkpointing));
    let training = 2.0 * passes * body * work.tokens + 4.0 * head * work.label_tokens;
    let labels = work.label_tokens / work.tokens.max(1.0);
    let scoring = 2.0 * (body + head * labels) * work.scored_tokens;
    let generation = 2.0 * (body + head) * work.generated_tokens * GENERATION_PENALTY;
    START + (training + scoring + generation) / rate(machine, work)
}

fn rate(machine: &MachineFacts, work: &Work) -> f64 {
    match (&machine.gpu, work.precision) {
        (Some(_), Precision::Bf16) => GPU_BF16,
        (Some(_), Precision::Fp32) => GPU_FP32,
        (None, Precision::Bf16) if machine.bf16 => CPU_BF16 * work.threads as f64,
        (None, _) => CPU_FP32 * work.threads as f64,
    }
}
