//! From a validated workspace and what was observed to a [`RunSpec`] that holds no open choice.
//!
//! What the user stated is taken as it is; what is unset is chosen from the size of model and data, and
//! each choice comes with its reason. What cannot work is told before anything runs, all of it at once.

mod adapter;
mod check;
mod evaluation;
mod fit;
mod fullest;
mod length;
mod numbers;
mod rate;
mod short;

use api::run_spec::{Compute, Output, RUN_SPEC_VERSION};
use api::{Fault, RunSpec, Workspace};
use serde::Serialize;
use serde_json::{Value, json};

use crate::capacity::Memory;
use crate::inputs::{Inputs, data_block, seed};
use crate::revision::revision;

pub(crate) use numbers::{bytes, grouped};

/// A run that is fully decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    pub run_spec: RunSpec,
    /// Every number of the run and where it comes from, in the order of the workspace's fields.
    pub reasons: Vec<Choice>,
    pub estimate: Estimate,
    /// What will work and is probably not what was meant.
    pub warnings: Vec<Fault>,
}

/// One decided field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Path below `spec`, such as `hyperparameters.learningRate`.
    pub field: String,
    pub value: Value,
    /// Why this value, in one line.
    pub reason: String,
    /// Whether the user stated it.
    pub given: bool,
}

/// What the run will take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    pub parameters: u64,
    pub trainable_parameters: u64,
    pub memory: Memory,
    /// Bytes at the peak.
    pub memory_total: u64,
    /// Bytes that the run may use.
    pub memory_limit: u64,
    /// Training, scoring and generation.
    pub seconds: u64,
    /// Tokens of all training steps.
    pub training_tokens: u64,
}

/// Decides everything about a run, or tells all that is wrong.
pub fn resolve(workspace: &Workspace, inputs: &Inputs) -> Result<Resolved, Vec<Fault>> {
    let mut made = Made::default();
    let mut faults = check::facts(workspace, inputs);
    let adapter =
        adapter::choose(workspace, inputs, &mut made).map_err(|more| faults.extend(more)).ok();
    let Some(adapter) = adapter.filter(|_| faults.is_empty()) else { return Err(faults) };
    let mut data = data_block(workspace, inputs.model.context, &inputs.sources);
    data.max_sequence_length = length::longest_allowed(workspace, inputs, &mut made);
    data.format = inputs.data.format.unwrap_or(data.format);
    let length = length::choose(workspace, inputs, &mut made);
    let rate = rate::choose(workspace, inputs, &adapter, length, &mut made)?;
    let evaluation = evaluation::choose(workspace, inputs, length, &mut made);
    let fit = fit::choose(workspace, inputs, &adapter, length, &evaluation, &mut made)?;
    let checkpoints = evaluation::checkpoints(workspace, length, &adapter, &mut made);
    let mut spec = RunSpec {
        version: RUN_SPEC_VERSION.to_owned(),
        name: workspace.name.to_string(),
        revision: String::new(),
        base_model: inputs.sources.base_model.clone(),
        data,
        method: workspace.method.clone(),
        adapter: adapter.spec.clone(),
        training: rate.training(length, &fit, seed(workspace)),
        evaluation,
        checkpoints,
        compute: Compute { device: fit.device, threads: Some(fit.threads as usize) },
        output: Output { dir: inputs.sources.output_dir.clone() },
    };
    spec.revision = revision(&spec, &inputs.data.digest);
    let estimate = fit::estimate(&spec, inputs, &adapter, length, &fit);
    Ok(Resolved { run_spec: spec, reasons: made.choices, estimate, warnings: made.warnings })
}

/// What was decided so far, and what is worth a warning.
#[derive(Default)]
struct Made {
    choices: Vec<Choice>,
    warnings: Vec<Fault>,
}

impl Made {
    /// The stated value, or the chosen one with its reason.
    fn choose<T: Serialize + Clone>(
        &mut self,
        field: &str,
        given: Option<T>,
        chosen: impl FnOnce() -> (T, String),
    ) -> T {
        let is_given = given.is_some();
        let (value, reason) = given.map_or_else(chosen, |value| (value, "as stated".to_owned()));
        self.note(field, &value, reason, is_given);
        value
    }

    fn note<T: Serialize>(
        &mut self,
        field: &str,
        value: &T,
        reason: impl Into<String>,
        given: bool,
    ) {
        self.choices.push(Choice {
            field: field.to_owned(),
            value: json!(value),
            reason: reason.into(),
            given,
        });
    }

    fn warn(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(fault(&format!("spec.{field}"), message, hint));
    }
}

fn fault(field: &str, message: impl Into<String>, hint: impl Into<String>) -> Fault {
    Fault {
        field: Some(field.to_owned()),
        message: message.into(),
        hint: Some(hint.into()),
        ..Fault::default()
    }
}
