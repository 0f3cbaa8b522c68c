//! A workspace in a pod: what `anneal run` does on a laptop, with the sources mounted, the progress
//! answered over HTTP and the end told in a termination message.

mod mounts;
mod progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use api::termination::{Stage, Termination};
use api::workspace::{AdapterStatus, Resolved as Estimate, Score};
use api::{DataFacts, Fault, MachineFacts, Workspace};
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use oci::{Options, Target};
use train::{ExitClass, Outcome};

use crate::Origin;
use progress::Progress;

/// What the pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read everything, choose everything, test the push, and end.
    Preflight,
    /// All of that, then train and push.
    Train,
}

/// Why the pod ends without having done its work: the exit class and the message.
#[derive(Debug)]
pub struct Ended {
    pub class: ExitClass,
    pub message: Termination,
}

impl Ended {
    fn new(class: ExitClass, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let message = Termination { message: chain(error), hint, ..Termination::default() };
        Self { class, message }
    }

    fn faults(faults: Vec<Fault>) -> Self {
        let message = format!("there are {} faults", faults.len());
        let message = Termination { message, faults, ..Termination::default() };
        Self { class: ExitClass::Configuration, message }
    }

    fn registry(error: &oci::Error) -> Self {
        Self::new(crate::class(error), error, error.hint())
    }
}

/// Does the work of a pod. `file` is the workspace; the machine's facts are the caller's.
pub fn run(role: Role, file: &Path, machine: MachineFacts) -> Result<Termination, Ended> {
    let progress = Progress::default();
    progress::serve(&progress).map_err(|error| Ended::new(ExitClass::Io, &error, None))?;
    let text =
        std::fs::read_to_string(file).map_err(|error| Ended::new(ExitClass::Io, &error, None))?;
    let (workspace, _) = api::load("workspace.yaml", &text).map_err(Ended::faults)?;
    let (target, options) = output(&workspace)?;
    if let Some(target) = &target {
        oci::blocking::check_push(target, &options).map_err(|error| Ended::registry(&error))?;
    }
    let (data, resolved) = resolve(&workspace, machine)?;
    let estimate = Estimate {
        examples: data.train.examples,
        training_tokens: resolved.estimate.training_tokens,
        memory: resolved.estimate.memory_total,
        seconds: resolved.estimate.seconds,
    };
    if role == Role::Preflight {
        return Ok(Termination { resolved: Some(estimate), ..Termination::default() });
    }
    let stop = stop_on_signal()?;
    let spec = resolved.run_spec;
    let outcome = train::run(&spec, &stop, &mut |event| {
        progress.hear(event);
        tracing::info!(event = %serde_json::to_string(event).unwrap_or_default());
    })
    .map_err(|error| Ended::new(error.class(), &error, error.hint()))?;
    progress.stage(Stage::Publishing);
    let origin = Origin { spec: &spec, data_digest: Some(&data.digest) };
    let adapter = target.map(|target| {
        let pushed = crate::publish(&outcome, &origin, &target, &options)?;
        Ok(AdapterStatus {
            image: pushed.target.to_string(),
            digest: pushed.digest,
            size: i64::try_from(pushed.size).ok(),
        })
    });
    let adapter = adapter.transpose().map_err(|error: oci::Error| Ended::registry(&error))?;
    let (evaluation, progress) = (scores(&outcome), progress.status().progress);
    Ok(Termination { adapter, evaluation, progress, ..Termination::default() })
}

/// Where the adapter goes, and how its registry is spoken to.
fn output(workspace: &Workspace) -> Result<(Option<Target>, Options), Ended> {
    let image = workspace.output.image.as_ref();
    let plain = std::env::var("ANNEAL_PLAIN_HTTP").unwrap_or_default();
    let plain_http = image.is_some_and(|image| plain.split(',').any(|host| host == image.registry));
    let ca_file = std::env::var_os("ANNEAL_CA_FILE").map(PathBuf::from);
    let options = Options { ca_file, plain_http, ..Options::default() };
    let target = image.map(|image| image.to_string().parse::<Target>()).transpose();
    let target = target.map_err(|error| Ended::registry(&oci::Error::Reference(error)))?;
    Ok((target, options))
}

/// Looks at model and data, and lets `plan` choose, as everywhere.
fn resolve(
    workspace: &Workspace,
    machine: MachineFacts,
) -> Result<(DataFacts, plan::Resolved), Ended> {
    let configuration =
        |error: &dyn std::error::Error, hint| Ended::new(ExitClass::Configuration, error, hint);
    let sources = mounts::sources(workspace);
    let files = ModelFiles::open(&sources.base_model.path)
        .map_err(|error| configuration(&error, error.hint()))?;
    let model = train::model_facts(&files).map_err(|error| configuration(&error, error.hint()))?;
    let tokenizer = Tokenizer::open(&files).map_err(|error| configuration(&error, error.hint()))?;
    let block = plan::data_block(workspace, model.context, &sources);
    let data = train::data::survey(&block, &tokenizer, plan::seed(workspace));
    if data.fault_count > 0 {
        let mut ended = Ended::faults(data.faults);
        ended.message.message = format!("the data has {} faults", data.fault_count);
        return Err(ended);
    }
    let inputs = plan::Inputs { model, data, machine, sources };
    let mut resolved = plan::resolve(workspace, &inputs).map_err(Ended::faults)?;
    let tokens = &mut resolved.run_spec.training.micro_batch_tokens;
    *tokens = (*tokens >> halvings()).max(1);
    Ok((inputs.data, resolved))
}

/// How often an earlier attempt ran out of memory.
fn halvings() -> u32 {
    let text = std::env::var("ANNEAL_MICRO_BATCH_HALVINGS").unwrap_or_default();
    text.parse().unwrap_or(0).min(usize::BITS - 1)
}

fn stop_on_signal() -> Result<Arc<AtomicBool>, Ended> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Ended::new(ExitClass::Internal, &error, None))?;
    }
    Ok(stop)
}

fn scores(outcome: &Outcome) -> Vec<Score> {
    let rows = outcome.compared.iter().flat_map(|compared| &compared.rows);
    rows.map(|row| Score { metric: row.metric.clone(), base: Some(row.base), tuned: row.tuned })
        .collect()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
