//! The smallest GPU that holds a run, with the reason and the next larger ones: the run is resolved for
//! each product of the catalogue as if the machine had it.
//!
//! This version trains on one GPU, so the count is one. The estimate is that of [`crate::capacity`],
//! whose constants were measured on CPUs: on a GPU it has yet to be held against measured peaks.

use std::collections::BTreeMap;

use api::run_spec::{Device, Precision};
use api::{GpuFacts, SplitFacts, Workspace};
use serde::Serialize;

use crate::catalogue::{Catalogue, Instance, Product};
use crate::inputs::Inputs;
use crate::resolve::{Resolved, bytes, grouped, resolve};

/// Other products that are named beside the chosen one.
const RUNNERS_UP: usize = 3;

/// Which GPU a run takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sizing {
    /// The smallest product that holds the run; none where no product does.
    pub chosen: Option<Candidate>,
    /// The next products that are better for something, or that another cloud has.
    pub runners_up: Vec<Candidate>,
    /// Why this one, or what is short, in one line.
    pub reason: String,
}

/// A product that holds the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub product: String,
    pub gpus: u32,
    /// Bytes that the run takes of it, and that it has.
    pub needs: u64,
    pub memory: u64,
    pub micro_batch_tokens: u64,
    /// Micro-batches in a step, on average.
    pub accumulation: u64,
    pub activation_checkpointing: bool,
    pub precision: Precision,
    /// By cloud, the smallest type that has it.
    pub instances: BTreeMap<String, Instance>,
}

/// The GPU that a run takes; `None` where the workspace asks for the CPU, or cannot run anywhere.
pub fn sizing(workspace: &Workspace, inputs: &Inputs, catalogue: &Catalogue) -> Option<Sizing> {
    if workspace.compute.device == Device::Cpu {
        return None;
    }
    let mut fitting = Vec::new();
    let mut last = None;
    for product in &catalogue.products {
        match on(workspace, inputs, product) {
            Ok(resolved) => fitting.push(candidate(product, &inputs.data.train, &resolved)),
            Err(faults) => last = Some((product, faults)),
        }
    }
    if fitting.is_empty() {
        // What has nothing to do with memory is told without us.
        let (product, faults) = last?;
        let fault = faults
            .into_iter()
            .find(|fault| fault.field.as_deref() == Some("spec.compute.memory"))?;
        let hint = fault.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        let reason = format!("not even {} holds it: {}{hint}", product.name, fault.message);
        return Some(Sizing { chosen: None, runners_up: Vec::new(), reason });
    }
    let rest = fitting.split_off(1);
    let chosen = fitting.pop();
    let reason = chosen.as_ref().map(|chosen| reason(chosen, catalogue)).unwrap_or_default();
    let runners_up = chosen.as_ref().map(|chosen| better(chosen, rest)).unwrap_or_default();
    Some(Sizing { chosen, runners_up, reason })
}

/// The run as it would be on a machine with the product.
fn on(
    workspace: &Workspace,
    inputs: &Inputs,
    product: &Product,
) -> Result<Resolved, Vec<api::Fault>> {
    let mut workspace = workspace.clone();
    workspace.compute.device = Device::Cuda;
    // It bounds the memory of the machine.
    workspace.compute.memory = None;
    let mut inputs = inputs.clone();
    let gpu = GpuFacts { product: product.name.clone(), memory: product.memory() };
    inputs.machine.gpu = Some(gpu);
    resolve(&workspace, &inputs)
}

fn candidate(product: &Product, train: &SplitFacts, resolved: &Resolved) -> Candidate {
    let training = &resolved.run_spec.training;
    let tokens = training.micro_batch_tokens as u64;
    let step = training.batch_size as u64 * train.tokens / train.examples.max(1);
    let instances = product.smallest_instances(1).into_iter();
    Candidate {
        product: product.name.clone(),
        gpus: 1,
        needs: resolved.estimate.memory_total,
        memory: product.memory(),
        micro_batch_tokens: tokens,
        accumulation: step.div_ceil(tokens.max(1)).max(1),
        activation_checkpointing: training.activation_checkpointing,
        precision: training.precision,
        instances: instances.map(|(cloud, one)| (cloud.to_owned(), one.clone())).collect(),
    }
}

fn reason(chosen: &Candidate, catalogue: &Catalogue) -> String {
    let which = match catalogue.products.first() {
        Some(first) if first.name == chosen.product => "the smallest there is",
        _ => "the smallest that holds the run",
    };
    let tight = if chosen.activation_checkpointing { ", activations made again" } else { "" };
    format!(
        "{which}: {} of {}, {} tokens at once{tight}",
        bytes(chosen.needs),
        bytes(chosen.memory),
        grouped(chosen.micro_batch_tokens),
    )
}

/// Others that take more at once, need not make activations again, or are in a cloud that those before
/// them are not in.
fn better(chosen: &Candidate, rest: Vec<Candidate>) -> Vec<Candidate> {
    let mut best = (chosen.micro_batch_tokens, chosen.activation_checkpointing);
    let mut clouds: Vec<String> = chosen.instances.keys().cloned().collect();
    let mut found = Vec::new();
    for candidate in rest {
        let is_better = candidate.micro_batch_tokens > best.0
            || (best.1 && !candidate.activation_checkpointing);
        let is_elsewhere = candidate.instances.keys().any(|cloud| !clouds.contains(cloud));
        if (is_better || is_elsewhere) && found.len() < RUNNERS_UP {
            best.0 = best.0.max(candidate.micro_batch_tokens);
            best.1 &= candidate.activation_checkpointing;
            clouds.extend(candidate.instances.keys().cloned());
            found.push(candidate);
        }
    }
    found
}
