//! What planning starts from, beside the workspace.

use std::path::PathBuf;

use api::run_spec::{BaseModel, Data, HeldOut};
use api::{DataFacts, MachineFacts, ModelFacts, Workspace, valid};
use serde::{Deserialize, Serialize};

/// Seed of a run that states none: transformers' own.
pub const DEFAULT_SEED: u64 = 42;

/// All that was found out before a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inputs {
    pub model: ModelFacts,
    pub data: DataFacts,
    pub machine: MachineFacts,
    pub sources: Sources,
}

/// Where the sources of a workspace lie on this machine, once images and repositories were fetched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sources {
    pub base_model: BaseModel,
    /// Files or folders, in the order given.
    pub train: Vec<PathBuf>,
    /// Empty where the split is a fraction, or there is none.
    #[serde(default)]
    pub validation: Vec<PathBuf>,
    /// Empty where the split is a fraction, or there is none.
    #[serde(default)]
    pub test: Vec<PathBuf>,
    /// The run's folder.
    pub output_dir: PathBuf,
}

/// The seed of a workspace: every random choice starts from it, that of the splits too.
pub fn seed(workspace: &Workspace) -> u64 {
    workspace.hyperparameters.seed.unwrap_or(DEFAULT_SEED)
}

/// How the data is to be read: what the survey of the data needs, before anything else is known.
///
/// The longest allowed example is the one that the user states, or the model's context.
pub fn data_block(workspace: &Workspace, context: u64, sources: &Sources) -> Data {
    let data = &workspace.data;
    let longest = workspace.hyperparameters.max_sequence_length.map_or(context, u64::from);
    Data {
        train: sources.train.clone(),
        validation: held_out(&data.validation, &sources.validation),
        test: held_out(&data.test, &sources.test),
        format: data.format,
        columns: data.columns.clone(),
        template: data.template.clone(),
        system: data.system.clone(),
        labels: data.labels.clone(),
        max_sequence_length: longest as usize,
        overlong: data.overlong,
        duplicates: data.duplicates,
    }
}

fn held_out(stated: &valid::HeldOut, paths: &[PathBuf]) -> HeldOut {
    match stated {
        valid::HeldOut::None => HeldOut::None,
        valid::HeldOut::Fraction(fraction) => HeldOut::Fraction(*fraction),
        valid::HeldOut::Source(_) => HeldOut::Files(paths.to_vec()),
    }
}
