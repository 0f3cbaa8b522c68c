//! A run that does not fit: how much is short, and the cheapest change with which it would fit.

use api::Fault;
use api::run_spec::{Precision, Quantization};

use super::adapter::Chosen;
use super::fault;
use super::fit::peak;
use super::length::Length;
use super::numbers::{bytes, grouped};
use crate::capacity::Shape;
use crate::inputs::Inputs;

/// Rank of the adapter that is proposed in place of training all weights.
const RANK: u64 = 16;
/// Sequences below this length are of little use.
const SHORTEST: u64 = 64;

/// A change of the workspace, and the shape that the run then has.
struct Change {
    what: String,
    shape: Shape,
}

/// The fault of a run that needs more than it may use.
pub(super) fn too_large(
    inputs: &Inputs,
    length: Length,
    shape: &Shape,
    limit: u64,
    adapter: &Chosen,
) -> Fault {
    let needs = |shape: &Shape| peak(inputs, length, shape).total();
    let total = needs(shape);
    let message = format!(
        "the run needs about {} of memory, and may use {}: {} are short",
        bytes(total),
        bytes(limit),
        bytes(total.saturating_sub(limit)),
    );
    let enough = |shape: &Shape| needs(shape) <= limit;
    let (mut done, mut smallest) = give_up(inputs, adapter, shape, enough);
    if !enough(&smallest)
        && let Some((longest, shape)) = shorter(&smallest, enough)
    {
        let now = grouped(smallest.longest);
        let what =
            format!("set `maxSequenceLength: {longest}` (the longest example has {now} tokens)");
        done.push(what);
        smallest = shape;
    }
    let then = bytes(needs(&smallest));
    let larger = "use a smaller base model, or a machine with more memory";
    let hint = if enough(&smallest) {
        format!("{}: it then needs {then}", done.join(" and "))
    } else if done.is_empty() {
        larger.to_owned()
    } else {
        format!("{larger}: where you {} it still needs {then}", done.join(" and "))
    };
    fault("spec.compute.memory", message, hint)
}

/// The cheapest single change that is enough; where none is, as many as it takes, or all there are.
fn give_up(
    inputs: &Inputs,
    adapter: &Chosen,
    shape: &Shape,
    enough: impl Fn(&Shape) -> bool,
) -> (Vec<String>, Shape) {
    let alone = changes(inputs, adapter, shape).into_iter().find(|one| enough(&one.shape));
    if let Some(Change { what, shape }) = alone {
        return (vec![what], shape);
    }
    let (mut done, mut smallest) = (Vec::new(), *shape);
    while !enough(&smallest)
        && let Some(next) = changes(inputs, adapter, &smallest).into_iter().next()
    {
        done.push(next.what);
        smallest = next.shape;
    }
    (done, smallest)
}

/// What can still be given up, the cheapest first.
fn changes(inputs: &Inputs, adapter: &Chosen, shape: &Shape) -> Vec<Change> {
    let mut changes = Vec::new();
    if shape.tokens > shape.longest {
        let fewer = Shape { tokens: shape.longest, ..*shape };
        let what = format!("set `microBatchTokens: {}`", shape.longest);
        changes.push(Change { what, shape: fewer });
    }
    if !shape.activation_checkpointing {
        let again = Shape { activation_checkpointing: true, ..*shape };
        changes
            .push(Change { what: "set `activationCheckpointing: true`".to_owned(), shape: again });
    }
    if shape.precision == Precision::Fp32 {
        let half = Shape { precision: Precision::Bf16, ..*shape };
        changes.push(Change { what: "set `precision: BF16`".to_owned(), shape: half });
    }
    if shape.quantization.is_none() && !(adapter.is_full() && shape.replaced > 0) {
        let packed = Shape { quantization: Quantization::Nf4, ..*shape };
        let what = "set `quantization: NF4` (QLoRA)".to_owned();
        changes.push(Change { what, shape: packed });
    }
    if adapter.is_full() && shape.replaced > 0 {
        let what = "train an adapter (`adapter: {lora: {}}`)".to_owned();
        changes.push(Change { what, shape: with_lora(inputs, shape) });
    }
    changes
}

/// The shape with an adapter on every linear layer but the head.
fn with_lora(inputs: &Inputs, shape: &Shape) -> Shape {
    let model = &inputs.model;
    let inner = || model.linears.iter().filter(|linear| !linear.name.ends_with("lm_head"));
    let sides = |linear: &api::LinearFacts| linear.inputs + linear.outputs;
    Shape {
        trainable: inner().map(sides).sum::<u64>() * RANK,
        replaced: 0,
        ranks_per_layer: inner().count() as u64 * RANK / model.layers.max(1),
        largest_trained: inner().map(|one| one.inputs.max(one.outputs)).max().unwrap_or(0) * RANK,
        ..*shape
    }
}

/// The longest sequences that fit, and the shape with them.
fn shorter(shape: &Shape, fits: impl Fn(&Shape) -> bool) -> Option<(u64, Shape)> {
    let cut = |longest: u64| Shape { longest, tokens: shape.tokens.min(longest), ..*shape };
    if shape.longest <= SHORTEST || !fits(&cut(SHORTEST)) {
        return None;
    }
    let (mut fitting, mut too_long) = (SHORTEST, shape.longest);
    while too_long - fitting > 1 {
        let middle = u64::midpoint(fitting, too_long);
        if fits(&cut(middle)) {
            fitting = middle;
        } else {
            too_long = middle;
        }
    }
    Some((fitting, cut(fitting)))
}
