//! What is trained: the layers, the rank and what follows from them.

use api::run_spec::{Adapter, Lora};
use api::valid::Lora as Stated;
use api::{Fault, LinearFacts, ModelFacts, Workspace, valid};

use super::numbers::grouped;
use super::{Made, fault};
use crate::inputs::Inputs;
use crate::targets::{self, ALL_LINEAR, Targets};

const FIELD: &str = "spec.adapter.lora";
/// Rank that is enough for most post-training, and the largest that is chosen for large data.
const RANK: u64 = 16;
const MOST_RANK: u64 = 128;
/// Keeps the best learning rate nearly free of the rank (Thinking Machines, `LoRA` Without Regret, 2025).
const ALPHA: f64 = 32.0;
/// The same scale at the usual rank where alpha is divided by its root.
const ALPHA_RSLORA: f64 = 8.0;

/// What is trained, and what of it counts for memory and time.
pub(super) struct Chosen {
    pub(super) spec: Adapter,
    pub(super) trainable: u64,
    /// Trained parameters that take the place of frozen ones.
    pub(super) replaced: u64,
    pub(super) ranks_per_layer: u64,
    pub(super) largest_trained: u64,
}

impl Chosen {
    pub(super) fn is_full(&self) -> bool {
        matches!(self.spec, Adapter::Full)
    }
}

pub(super) fn choose(
    workspace: &Workspace,
    inputs: &Inputs,
    made: &mut Made,
) -> Result<Chosen, Vec<Fault>> {
    match &workspace.adapter {
        valid::Adapter::Full => Ok(full(&inputs.model, made)),
        valid::Adapter::Lora(stated) => lora(stated, inputs, made),
    }
}

fn full(model: &ModelFacts, made: &mut Made) -> Chosen {
    made.note("adapter", &"full", "as stated", true);
    let embeddings = model.vocabulary * model.hidden_size;
    let largest =
        model.linears.iter().map(|linear| linear.inputs * linear.outputs).max().unwrap_or(0);
    Chosen {
        spec: Adapter::Full,
        trainable: model.parameters,
        replaced: model.parameters,
        ranks_per_layer: 0,
        largest_trained: largest.max(embeddings),
    }
}

fn lora(stated: &Stated, inputs: &Inputs, made: &mut Made) -> Result<Chosen, Vec<Fault>> {
    let model = &inputs.model;
    let all = vec![ALL_LINEAR.to_owned()];
    let wanted = stated.target_modules.as_ref().unwrap_or(&all);
    let mut faults = Vec::new();
    let targets = targets::choose(&model.linears, wanted, &stated.exclude_modules, FIELD);
    let targets = targets.map_err(|more| faults.extend(more)).ok();
    let saved = saved_parameters(model, stated).map_err(|more| faults.extend(more)).ok();
    if let (Some(targets), Some(rank)) = (&targets, stated.rank) {
        faults.extend(rank_fault(targets, u64::from(rank)));
        faults.extend(twice(targets, stated));
    }
    let (Some(targets), Some(saved), true) = (targets, saved, faults.is_empty()) else {
        return Err(faults);
    };
    made.choose("adapter.lora.targetModules", stated.target_modules.clone(), || {
        (
            all,
            "every linear layer but the head learns best per parameter (LoRA Without Regret)"
                .to_owned(),
        )
    });
    let (rank, alpha) = rank_and_alpha(stated, &targets, inputs, made);
    let dropout = made.choose("adapter.lora.dropout", stated.dropout, || {
        (0.0, "short runs gain nothing from it".to_owned())
    });
    let spec = Lora {
        rank: rank as usize,
        alpha,
        dropout,
        target_modules: targets.names.clone(),
        exclude_modules: Vec::new(),
        rslora: stated.rslora,
        bias: stated.bias,
        modules_to_save: stated.modules_to_save.clone(),
    };
    let largest =
        targets.linears.iter().map(|linear| linear.inputs.max(linear.outputs) * rank).max();
    let spec = Adapter::Lora(spec);
    let trainable = crate::capacity::trainable(model, &spec, Some(&targets)) + saved.total;
    Ok(Chosen {
        spec,
        trainable,
        replaced: saved.total,
        ranks_per_layer: (targets.linears.len() as u64 * rank).div_ceil(model.layers.max(1)),
        largest_trained: largest.unwrap_or(0).max(saved.largest),
    })
}

fn rank_and_alpha(
    stated: &Stated,
    targets: &Targets<'_>,
    inputs: &Inputs,
    made: &mut Made,
) -> (u64, f64) {
    let labels = inputs.data.train.label_tokens;
    let smallest = targets.linears.iter().map(|linear| side(linear)).min().unwrap_or(RANK);
    let sides: u64 = targets.linears.iter().map(|linear| linear.inputs + linear.outputs).sum();
    let rank = made.choose("adapter.lora.rank", stated.rank.map(u64::from), || {
        // A parameter holds about two bits, and a learned token has about one.
        let enough = |rank: u64| sides * rank * 2 >= labels;
        let rank = std::iter::successors(Some(RANK), |rank| Some(rank * 2));
        let rank = rank
            .take_while(|rank| *rank <= MOST_RANK)
            .find(|rank| enough(*rank))
            .unwrap_or(MOST_RANK);
        if smallest < rank {
            return (smallest, format!("the smallest target layer has a side of {smallest}"));
        }
        let why = if rank == RANK { "is enough" } else { "is needed" };
        (rank, format!("{why} for {} tokens to learn", grouped(labels)))
    });
    if stated.rank.is_some() && sides * rank * 2 < labels {
        let message =
            format!("rank {rank} may be too small for {} tokens to learn", grouped(labels));
        made.warn("adapter.lora.rank", message, "raise it, or remove it to have one chosen");
    }
    let alpha = made.choose("adapter.lora.alpha", stated.alpha, || {
        let alpha = if stated.rslora { ALPHA_RSLORA } else { ALPHA };
        (alpha, "keeps the best learning rate nearly free of the rank".to_owned())
    });
    (rank, alpha)
}

/// The rank of a layer's matrix is at most its shorter side.
fn side(linear: &LinearFacts) -> u64 {
    linear.inputs.min(linear.outputs)
}

fn rank_fault(targets: &Targets<'_>, rank: u64) -> Option<Fault> {
    let smallest = targets.linears.iter().min_by_key(|linear| side(linear))?;
    (rank > side(smallest)).then(|| {
        let (name, outputs, inputs) = (&smallest.name, smallest.outputs, smallest.inputs);
        let message =
            format!("rank {rank} is larger than the layer `{name}` ({outputs} x {inputs})");
        let hint = format!(
            "use a rank of at most {}, or leave the layer out with excludeModules",
            side(smallest)
        );
        fault(&format!("{FIELD}.rank"), message, hint)
    })
}

/// Parameters of the modules that are trained in full beside the adapter.
struct Saved {
    total: u64,
    largest: u64,
}

fn saved_parameters(model: &ModelFacts, stated: &Stated) -> Result<Saved, Vec<Fault>> {
    let (mut saved, mut faults) = (Saved { total: 0, largest: 0 }, Vec::new());
    for (index, name) in stated.modules_to_save.iter().enumerate() {
        let sizes = sizes_of(model, name);
        if sizes.is_empty() {
            let field = format!("{FIELD}.modulesToSave[{index}]");
            faults.push(match name.as_str() {
                "lm_head" => {
                    fault(&field, "the model's head is its embedding matrix", "use `embed_tokens`")
                }
                _ => fault(
                    &field,
                    format!("no module of the model is named `{name}`"),
                    "use `embed_tokens`, `lm_head` or a linear layer",
                ),
            });
        }
        saved.total += sizes.iter().sum::<u64>();
        saved.largest = saved.largest.max(sizes.into_iter().max().unwrap_or(0));
    }
    if faults.is_empty() { Ok(saved) } else { Err(faults) }
}

fn sizes_of(model: &ModelFacts, name: &str) -> Vec<u64> {
    let last = name.rsplit('.').next().unwrap_or(name);
    if last == "embed_tokens" {
        return vec![model.vocabulary * model.hidden_size];
    }
    // Norms are not among the linear layers and weigh next to nothing; the trainer looks for them.
    if last.ends_with("norm") {
        return vec![model.hidden_size];
    }
    let names = |linear: &&LinearFacts| {
        linear.name.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    model.linears.iter().filter(names).map(|linear| linear.inputs * linear.outputs).collect()
}

/// A layer cannot be both adapted and trained in full.
fn twice(targets: &Targets<'_>, stated: &Stated) -> Vec<Fault> {
    let both = stated.modules_to_save.iter().enumerate().filter(|(_, name)| {
        targets.linears.iter().any(|linear| {
            linear
                .name
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    });
    both.map(|(index, name)| {
        let message = format!("`{name}` is a target of the adapter too");
        fault(
            &format!("{FIELD}.modulesToSave[{index}]"),
            message,
            "add it to excludeModules, or remove it here",
        )
    })
    .collect()
}
