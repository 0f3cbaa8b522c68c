//! How much memory a run takes at its peak: a pure function of model, adapter and micro-batch.
//!
//! The engine keeps, per token and layer, what its hand-written backward steps need (`lm/src/tape.rs`):
//! the block's input and the sum after attention (`D` each), queries and attention's result (`Q` each),
//! keys and values (`K` each), gate and up (`F` each); normed inputs and the gated product are made
//! again. With activation checkpointing it keeps the two sums (`2·D`) and, at one time, the inside of
//! half a block. The head's logits exist for one chunk of rows. So
//!
//! ```text
//! peak = process + weights + trained
//!      + max(kept + a block's backward pass + a chunk of the head, copies of the optimizer's largest matrix,
//!            scoring without a gradient, keys and values of a generation)
//!      + the largest quantized matrix, written out
//!      + a product's both sides and result in fp32, where bf16 is not multiplied
//! ```
//!
//! Where the terms come from: a block's activations are counted as by Korthikanti et al. (2022,
//! arXiv:2205.05198), with attention's scores left out as it never keeps them (Dao et al., 2022,
//! arXiv:2205.14135) and with what our tape makes again; checkpointing is that of Chen et al. (2016,
//! arXiv:1604.06174) with a block as its segment; 16 bytes for each trained parameter are value, gradient
//! and the two moments of Adam in fp32 (Rajbhandari et al., 2020, arXiv:1910.02054, has 12 of these beside
//! halves); trained parameters of an adapter are those of Hu et al. (2021, arXiv:2106.09685); the head in
//! chunks of rows bounds the logits, as by Wijmans et al. (2024, arXiv:2411.09009).
//!
//! The constants were first fitted to 29 measured peaks on two cores: three models (135M tied, 100M untied,
//! 270M with a vocabulary of 262,144), both precisions, with and without checkpointing, ranks 16 and 64,
//! dropout, full fine-tuning, 12 to 4,020 tokens at once. What the allocator adds, and what a length of
//! sequence costs in bf16, was fitted anew to runs of SmolLM2-135M over many lengths; twelve further runs
//! (equal, mixed and mostly short lengths, both precisions, checkpointing, dropout, all weights) were then
//! announced at 0.90 to 1.12 of what they took.

use api::ModelFacts;
use api::run_spec::{Adapter, Precision, Quantization};
use serde::{Deserialize, Serialize};

use crate::targets::Targets;

/// Bytes of the process itself: program, LibTorch's code and tables, thread stacks.
const PROCESS: f64 = 190e6;
/// Bytes of the tokenizer per entry of the vocabulary.
const PER_VOCABULARY_ENTRY: f64 = 230.0;
/// Bytes that the CPU's bf16 kernels keep for each length of sequence that they have met, as
/// [`filled`] up, and the number of lengths after which older ones are given up.
const PER_LENGTH: f64 = 12e6;
const MOST_LENGTHS: u64 = 40;
/// Elements of one chunk of logits (`lm/src/head.rs`), and bytes that each adds to the peak.
const HEAD_CHUNK: f64 = 16.0 * 1_048_576.0;
const HEAD_BYTES: f64 = 3.0;
/// Sequences that are generated side by side (`lm/src/generate.rs`).
const GENERATION_BATCH: f64 = 16.0;
/// What the allocator holds beyond what the activations need, of these.
const SLACK: f64 = 1.03;
/// The same of the tensors that come and go in a block's backward pass.
const WORK_SLACK: f64 = 1.2;
/// Copies of the largest trained matrix that an optimizer's step makes.
const OPTIMIZER_COPIES: f64 = 4.0;

/// Bytes of an element in 4 bits: its own half, and its shares of the factors of 64 and of 64·256 elements.
const NF4_BYTES: f64 = 0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0);

/// The rows that a CPU's attention gives to a sequence (`lm/src/attention/batch.rs`).
pub fn filled(length: u32) -> u32 {
    length.next_multiple_of(if length < 192 { 32 } else { 64 })
}

/// What of a run decides its memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shape {
    /// Trained parameters.
    pub trainable: u64,
    /// Trained parameters that take the place of frozen ones: all of them in full fine-tuning.
    pub replaced: u64,
    /// Ranks of all adapters of one block, summed up.
    pub ranks_per_layer: u64,
    /// Parameters of the largest trained matrix.
    pub largest_trained: u64,
    pub dropout: bool,
    pub precision: Precision,
    #[serde(default, skip_serializing_if = "Quantization::is_none")]
    pub quantization: Quantization,
    pub activation_checkpointing: bool,
    /// Tokens that go through the model at once.
    pub tokens: u64,
    /// Longest sequence among them.
    pub longest: u64,
    /// Lengths of sequence that CPU kernels in bf16 are prepared for; 0 where there are none such.
    pub lengths: u64,
    /// Products are made in fp32, as the processor does not multiply bf16 (`lm/src/products.rs`).
    #[serde(default)]
    pub widened: bool,
    /// Of these tokens, the share that a loss is taken on.
    pub label_share: f64,
    /// Tokens that are scored at once, without a gradient; 0 where nothing is.
    pub scored: u64,
    /// Prompt and answer of a generated sequence in tokens; 0 where nothing is generated.
    pub generated: u64,
}

/// Bytes of a run at its peak, by what takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Program, libraries, tokenizer, prepared kernels.
    pub process: u64,
    /// Frozen weights.
    pub weights: u64,
    /// Trained parameters, their gradients, and `AdamW`'s two moments.
    pub trained: u64,
    /// Kept between the forward and the backward pass.
    pub activations: u64,
    /// The largest thing that comes and goes: a block's backward pass with a chunk of the head, copies of a
    /// matrix that the optimizer makes, a generation's keys and values.
    pub work: u64,
}

impl Memory {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.process + self.weights + self.trained + self.activations + self.work
    }
}

/// Trained parameters of an adapter.
pub fn trainable(model: &ModelFacts, adapter: &Adapter, targets: Option<&Targets<'_>>) -> u64 {
    match (adapter, targets) {
        (Adapter::Lora(lora), Some(targets)) => {
            let sides = targets.linears.iter().map(|linear| linear.inputs + linear.outputs);
            sides.sum::<u64>() * lora.rank as u64
        }
        (Adapter::Lora(_), None) => 0,
        (Adapter::Full, _) => model.parameters,
    }
}

/// The memory that a run of this shape takes.
pub fn memory(model: &ModelFacts, shape: &Shape) -> Memory {
    let (kept, work) = step(model, shape);
    let optimizer = OPTIMIZER_COPIES * 4.0 * shape.largest_trained as f64;
    let other = optimizer.max(generation(model, shape)).max(scoring(model, shape));
    let (kept, work) = if kept + work >= other { (kept, work) } else { (0.0, other) };
    let kernels = PER_LENGTH * shape.lengths.min(MOST_LENGTHS) as f64;
    let process = PROCESS + PER_VOCABULARY_ENTRY * model.vocabulary as f64 + kernels;
    Memory {
        process: process as u64,
        weights: weights(model, shape) as u64,
        // Value, gradient and two moments, each fp32.
        trained: shape.trainable * 16,
        activations: kept as u64,
        work: (work + written_out(model, shape) + widened(model, shape)) as u64,
    }
}

/// Linear layers whose matrices are quantized: all but the head.
fn quantized<'a>(model: &'a ModelFacts, shape: &Shape) -> impl Iterator<Item = u64> + 'a {
    let none = shape.quantization.is_none();
    let linears = model.linears.iter().filter(move |one| !none && !one.name.ends_with("lm_head"));
    linears.map(|linear| linear.outputs * linear.inputs)
}

/// Bytes of the frozen weights.
fn weights(model: &ModelFacts, shape: &Shape) -> f64 {
    let quantized: u64 = quantized(model, shape).sum();
    let whole = model.parameters.saturating_sub(shape.replaced).saturating_sub(quantized);
    let each = match shape.quantization {
        Quantization::None => 0.0,
        Quantization::Nf4 => NF4_BYTES,
        Quantization::Int8 => 1.0,
    };
    whole as f64 * bytes_of(shape.precision) + quantized as f64 * each
}

/// A quantized matrix is written out while it is multiplied, one at a time.
fn written_out(model: &ModelFacts, shape: &Shape) -> f64 {
    quantized(model, shape).max().unwrap_or(0) as f64 * bytes_of(shape.precision)
}

/// Both sides of a product and its result in fp32, where they are kept in bf16: a linear layer of the block
/// or the head, whichever is larger.
fn widened(model: &ModelFacts, shape: &Shape) -> f64 {
    if !shape.widened {
        return 0.0;
    }
    let inner = model.linears.iter().filter(|one| !one.name.ends_with("lm_head"));
    let matrix = inner.map(|one| one.outputs * one.inputs).max().unwrap_or(0) as f64;
    let w = widths(model);
    let tokens = shape.tokens.max(shape.scored) as f64;
    let head = (model.vocabulary * model.hidden_size) as f64;
    4.0 * (matrix + tokens * (w.inner + w.hidden)).max(head)
}

fn bytes_of(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 4.0,
        Precision::Bf16 => 2.0,
    }
}

/// Widths of a block's activations, in elements per token.
struct Widths {
    hidden: f64,
    queries: f64,
    keys: f64,
    inner: f64,
    heads: f64,
    /// Inputs of the norms that some architectures have beside the usual two.
    normed: f64,
}

fn widths(model: &ModelFacts) -> Widths {
    let hidden = model.hidden_size as f64;
    let queries = (model.attention_heads * model.head_dim) as f64;
    let keys = (model.key_value_heads * model.head_dim) as f64;
    let normed = match model.model_type.as_str() {
        "gemma3_text" => queries + keys + 2.0 * hidden,
        "qwen3" => queries + keys,
        _ => 0.0,
    };
    let (inner, heads) = (model.intermediate_size as f64, model.attention_heads as f64);
    Widths { hidden, queries, keys, inner, heads, normed }
}

/// Bytes kept for the backward pass, and bytes of the work at the fullest moment.
fn step(model: &ModelFacts, shape: &Shape) -> (f64, f64) {
    let (w, bytes) = (widths(model), bytes_of(shape.precision));
    let (tokens, layers) = (shape.tokens as f64, model.layers as f64);
    let low_ranks = shape.ranks_per_layer as f64 * bytes;
    // Dropout keeps the factors of every adapter's input.
    let masks = if shape.dropout { (5.0 * w.hidden + w.queries + w.inner) * bytes } else { 0.0 };
    let attention = (2.0 * w.queries + 2.0 * w.keys) * bytes + w.heads * 4.0;
    let feed_forward = 2.0 * w.inner * bytes;
    let sums = 2.0 * w.hidden * bytes;
    let inside = attention + feed_forward + low_ranks + masks + w.normed * bytes;
    let (per_layer, again) = if shape.activation_checkpointing {
        (sums, attention.max(feed_forward) + f64::midpoint(low_ranks, masks))
    } else {
        (sums + inside, 0.0)
    };
    // Hidden states in and out of the final norm, and their gradient.
    let labels = (tokens * shape.label_share).max(1.0);
    let ends = 2.0 * w.hidden * bytes;
    let kept = tokens * (layers * per_layer + ends) + labels * ends;
    // Gradients of gate, up, their product and the product itself; those of input and output.
    let feed_forward_work = 4.0 * w.inner + 3.0 * w.hidden;
    // Gradients of queries, keys, values and result, the latter two once for each query head.
    let attention_work = 8.0 * w.queries + 2.0 * w.keys + 3.0 * w.hidden;
    let block = tokens * (again + feed_forward_work.max(attention_work) * bytes);
    let work = WORK_SLACK * block + head(model, labels);
    (SLACK * kept, work)
}

/// A chunk of logits and their gradient.
fn head(model: &ModelFacts, labels: f64) -> f64 {
    let vocabulary = model.vocabulary as f64;
    let rows = (HEAD_CHUNK / vocabulary).floor().max(1.0).min(labels);
    rows * vocabulary * HEAD_BYTES
}

/// One half of a block at a time: gate, up and their product, or queries, keys, values and the result, the
/// keys and values once for each query head; the sum so far and its norm; then a chunk of the head.
fn scoring(model: &ModelFacts, shape: &Shape) -> f64 {
    let (w, tokens) = (widths(model), shape.scored as f64);
    let half = (3.0 * w.inner).max(5.0 * w.queries + 2.0 * w.keys) + 2.0 * w.hidden;
    let head = if shape.scored == 0 { 0.0 } else { head(model, tokens * shape.label_share) };
    WORK_SLACK * tokens * half * bytes_of(shape.precision) + head
}

/// Keys and values of the sequences that are generated side by side.
fn generation(model: &ModelFacts, shape: &Shape) -> f64 {
    let w = widths(model);
    let cache = model.layers as f64 * 2.0 * w.keys * bytes_of(shape.precision);
    GENERATION_BATCH * shape.generated as f64 * cache
}
