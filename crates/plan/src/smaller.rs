//! Changes with which a run takes a smaller GPU, each tried through the estimate itself: what preflight tells,
//! so that the operator can name the cheapest one where no product of its own holds the run.

use api::run_spec::{Overlong, Precision, Quantization};
use api::valid::{Adapter, Lora};
use api::workspace::Smaller;
use api::{SplitFacts, Workspace};

use crate::inputs::Inputs;
use crate::least::least;
use crate::resolve::grouped;

/// Most changes that are told: they share a message of 4 KiB.
const MOST: usize = 8;
/// Sequences below this length are of little use.
const SHORTEST: u64 = 64;

/// A run that was changed, and how.
#[derive(Clone)]
struct Changed {
    done: Vec<String>,
    workspace: Workspace,
    inputs: Inputs,
}

impl Changed {
    fn and(&self, what: &str, change: impl FnOnce(&mut Workspace, &mut Inputs)) -> Self {
        let mut other = self.clone();
        change(&mut other.workspace, &mut other.inputs);
        other.done.push(what.to_owned());
        other
    }
}

/// The changes that a run of `memory` bytes can make, the cheapest first; each takes less than all before it.
pub(crate) fn smaller(workspace: &Workspace, inputs: &Inputs, memory: u64) -> Vec<Smaller> {
    let as_is = Changed { done: Vec::new(), workspace: workspace.clone(), inputs: inputs.clone() };
    let alone = changes(&as_is);
    let mut together = Vec::new();
    let mut all = as_is.clone();
    while let Some(next) = changes(&all).into_iter().next() {
        all = next;
        together.push(all.clone());
    }
    let tries = [alone, shorter(&as_is), together, shorter(&all)].concat();
    let mut found: Vec<Smaller> = Vec::new();
    for one in tries {
        let below = found.last().map_or(memory, |last| last.gpu_memory);
        let Ok(least) = least(&one.workspace, &one.inputs) else { continue };
        if least.memory < below && found.len() < MOST {
            found.push(Smaller { change: one.done.join(" and "), gpu_memory: least.memory });
        }
    }
    found
}

/// What can be given up, the cheapest first. What is not stated, the estimate gives up by itself.
fn changes(of: &Changed) -> Vec<Changed> {
    let stated = &of.workspace.hyperparameters;
    let mut all = Vec::new();
    if stated.micro_batch_tokens.is_some() {
        all.push(of.and("remove `microBatchTokens`", |workspace, _| {
            workspace.hyperparameters.micro_batch_tokens = None;
        }));
    }
    if stated.activation_checkpointing == Some(false) {
        all.push(of.and("set `activationCheckpointing: true`", |workspace, _| {
            workspace.hyperparameters.activation_checkpointing = Some(true);
        }));
    }
    if stated.precision == Some(Precision::Fp32) {
        all.push(of.and("set `precision: BF16`", |workspace, _| {
            workspace.hyperparameters.precision = Some(Precision::Bf16);
        }));
    }
    let is_full = of.workspace.adapter == Adapter::Full;
    let is_quantized =
        !(of.workspace.quantization.is_none() && of.inputs.model.quantization.is_none());
    if !is_full && !is_quantized {
        all.push(of.and("set `quantization: NF4` (QLoRA)", |workspace, _| {
            workspace.quantization = Quantization::Nf4;
        }));
    }
    if is_full {
        all.push(of.and("train an adapter (`adapter: {lora: {}}`)", |workspace, _| {
            workspace.adapter = Adapter::Lora(Lora::default());
        }));
    }
    all
}

/// Half the length of the longest example, half of that, and so on.
fn shorter(of: &Changed) -> Vec<Changed> {
    let data = &of.inputs.data;
    let longest = data.train.longest.max(data.validation.longest).max(data.test.longest);
    let halves = std::iter::successors(Some(longest / 2), |length| Some(length / 2));
    let cut = |length: u64| {
        let now = grouped(longest);
        // Otherwise longer examples are a fault.
        let cuts = match of.workspace.data.overlong {
            Overlong::Fault => " and `overlong: Truncate`",
            Overlong::Truncate | Overlong::Drop => "",
        };
        let what = format!(
            "set `maxSequenceLength: {length}`{cuts} (the longest example has {now} tokens)"
        );
        of.and(&what, |workspace, inputs| {
            workspace.hyperparameters.max_sequence_length = u32::try_from(length).ok();
            let data = &mut inputs.data;
            for split in [&mut data.train, &mut data.validation, &mut data.test] {
                cut_to(split, length);
            }
        })
    };
    halves.take_while(|length| *length >= SHORTEST).map(cut).collect()
}

/// A split whose examples are no longer than that. What the lengths leave out, at most, is left out of the
/// sums too.
fn cut_to(split: &mut SplitFacts, most: u64) {
    split.longest = split.longest.min(most);
    split.shared = split.shared.min(most.saturating_sub(1));
    let before: u64 = split.lengths.iter().map(|length| u64::from(*length)).sum();
    for length in &mut split.lengths {
        *length = (*length).min(u32::try_from(most).unwrap_or(u32::MAX));
    }
    let after: u64 = split.lengths.iter().map(|length| u64::from(*length)).sum();
    let share = after as f64 / before.max(1) as f64;
    split.tokens = (split.tokens as f64 * share) as u64;
    split.label_tokens = (split.label_tokens as f64 * share) as u64;
}
