//! The plan for a person: the data and its lengths, every choice with its reason, memory and time.

use api::run_spec::{Adapter, RunSpec};
use api::{Fault, SplitFacts};
use plan::{Candidate, Choice, Estimate, Sizing, histogram};
use serde_json::Value;

use super::format;
use crate::prepare::Prepared;
use crate::say::say;

/// Buckets of the histogram, and the width of its longest bar.
const BUCKETS: usize = 8;
const BAR: usize = 40;

/// Prints all of it.
pub(crate) fn print(prepared: &Prepared) {
    let spec = &prepared.resolved.run_spec;
    let estimate = &prepared.resolved.estimate;
    model(prepared, spec);
    data(prepared);
    choices(&prepared.resolved.reasons);
    totals(spec, estimate);
    if let Some(sizing) = &prepared.sizing {
        gpu(sizing);
    }
    warnings(&prepared.resolved.warnings);
}

fn model(prepared: &Prepared, spec: &RunSpec) {
    let model = &prepared.model;
    say!("{} (revision {})\n", spec.name, spec.revision);
    say!(
        "base model  {} ({}, {} parameters, {} layers)",
        spec.base_model.reference,
        model.model_type,
        format::count(model.parameters),
        model.layers
    );
    let estimate = &prepared.resolved.estimate;
    let what = match &spec.adapter {
        Adapter::Lora(lora) => format!("LoRA of rank {}", lora.rank),
        Adapter::Full => "all weights".to_owned(),
    };
    say!(
        "trained     {what}: {} parameters, {:.2} % of the model",
        format::count(estimate.trainable_parameters),
        100.0 * estimate.trainable_parameters as f64 / model.parameters.max(1) as f64
    );
}

fn data(prepared: &Prepared) {
    let data = &prepared.data;
    say!("\ndata        examples      tokens     learned   longest");
    let splits = [("train", &data.train), ("validation", &data.validation), ("test", &data.test)];
    for (name, split) in splits.iter().filter(|(_, split)| split.examples > 0) {
        say!(
            "  {name:<10}{:>8} {:>11} {:>11} {:>9}",
            format::count(split.examples),
            format::count(split.tokens),
            format::count(split.label_tokens),
            format::count(split.longest)
        );
    }
    if data.train.shared > 0 {
        say!("  all begin with the same {} tokens: once in a micro-batch", data.train.shared);
    }
    for (count, what) in [(data.dropped, "left out"), (data.truncated, "cut to length")] {
        if count > 0 {
            say!("  {} {what}", format::count(count));
        }
    }
    lengths(&data.train);
}

/// How long the training examples are.
fn lengths(split: &SplitFacts) {
    let buckets = histogram(split, BUCKETS);
    let most = buckets.iter().map(|bucket| bucket.examples).max().unwrap_or(0).max(1);
    say!("\ntokens      training examples");
    for bucket in buckets {
        let bar = format::bar(bucket.examples as f64 / most as f64, BAR);
        let range = format!("{}-{}", bucket.from, bucket.to);
        say!("  {range:>9} {:>7} {bar}", format::count(bucket.examples));
    }
}

fn choices(choices: &[Choice]) {
    let width = choices.iter().map(|choice| choice.field.len()).max().unwrap_or(0);
    let values: Vec<String> = choices.iter().map(|choice| value(&choice.value)).collect();
    let value_width =
        values.iter().map(String::len).filter(|width| *width <= 24).max().unwrap_or(0);
    say!("\nchoices");
    for (choice, value) in choices.iter().zip(values) {
        say!("  {:<width$}  {value:<value_width$}  {}", choice.field, choice.reason);
    }
}

/// A value without the marks of JSON.
fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => format::count(whole),
            (None, Some(float)) if float != 0.0 && float.abs() < 1e-3 => format!("{float:e}"),
            (None, _) => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(self::value).collect::<Vec<_>>().join(", "),
        Value::Null => "none".to_owned(),
        Value::Bool(_) | Value::Object(_) => value.to_string(),
    }
}

fn totals(spec: &RunSpec, estimate: &Estimate) {
    let memory = &estimate.memory;
    let parts = [
        ("process", memory.process),
        ("weights", memory.weights),
        ("trained", memory.trained),
        ("activations", memory.activations),
        ("work", memory.work),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {}", format::bytes(*bytes)))
        .collect();
    say!(
        "\nsteps       {} ({} tokens)",
        format::count(spec.training.steps),
        format::count(estimate.training_tokens)
    );
    say!(
        "memory      {} at the peak, of {} ({})",
        format::bytes(estimate.memory_total),
        format::bytes(estimate.memory_limit),
        parts.join(", ")
    );
    say!("time        about {}", format::seconds(estimate.seconds as f64));
    say!("output      {}", spec.output.dir.display());
}

/// The GPU that the run would take in a cluster, and what a larger one is better for.
fn gpu(sizing: &Sizing) {
    let Some(chosen) = &sizing.chosen else {
        say!("gpu         none: {}", sizing.reason);
        return;
    };
    say!("gpu         {}{}: {}", chosen.product, types(chosen), sizing.reason);
    for candidate in &sizing.runners_up {
        say!(
            "            or {}{}: {} of {}, {} tokens at once",
            candidate.product,
            types(candidate),
            format::bytes(candidate.needs),
            format::bytes(candidate.memory),
            format::count(candidate.micro_batch_tokens),
        );
    }
}

/// Instance types: ` (aws g6.xlarge; gcp g2-standard-4)`.
fn types(candidate: &Candidate) -> String {
    let types = candidate.instances.iter().map(|(cloud, one)| match one.gpus {
        1 => format!("{cloud} {}", one.type_),
        gpus => format!("{cloud} {}, which has {gpus}", one.type_),
    });
    let types = types.collect::<Vec<_>>().join("; ");
    if types.is_empty() { types } else { format!(" ({types})") }
}

/// What will work and is probably not what was meant.
pub(crate) fn warnings(warnings: &[Fault]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
