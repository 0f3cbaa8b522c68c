//! A workspace in a pod: what `anneal run` does on a laptop, with the sources mounted or fetched, the
//! progress answered over HTTP and the end told in a termination message.

mod ended;
mod metrics;
mod mounts;
mod progress;
mod server;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use api::termination::{Stage, Termination};
use api::workspace::{AdapterStatus, CheckpointPlace, Resolved as Estimate};
use api::{DataFacts, MachineFacts, TrainerStatus, Workspace};
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use oci::{Options, Target};
use plan::Asked;
use train::data::Dataset;
use train::event::Event;
use train::{ExitClass, Given, Outcome};

use crate::Origin;
use crate::checkpoints::{Found, Pusher, Remote};
pub use ended::Ended;
use progress::Progress;

/// Attempts to push the result, over about two minutes: registries are restarted.
const PUSH_ATTEMPTS: u32 = 9;
/// Between two pushes of checkpoints of a run that saves none by time.
const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(10);

/// What the pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read everything, choose everything, test the push, and end.
    Preflight,
    /// All of that, then train and push.
    Train,
}

/// A run that is decided, and where its result goes.
struct Prepared {
    workspace: Workspace,
    data: Dataset,
    resolved: plan::Resolved,
    /// What the run asks of a GPU, where it asks for one; preflight's alone.
    gpu: Option<Asked>,
    target: Option<Target>,
    options: Options,
}

/// Does the work of a pod. `file` is the workspace; the machine's facts are the caller's.
pub fn run(role: Role, file: &Path, machine: MachineFacts) -> Result<Termination, Ended> {
    let progress = Progress::new();
    let stop = stop_on_signal()?;
    watch::start(&progress, &stop);
    server::serve(&progress).map_err(|error| Ended::new(ExitClass::Io, &error, None))?;
    let prepared = prepare(role, file, machine, &progress)?;
    match role {
        Role::Preflight => {
            let resolved = Some(estimate(&prepared));
            Ok(Termination { resolved, ..Termination::default() })
        }
        Role::Train => train(&prepared, &stop, &progress),
    }
}

fn prepare(
    role: Role,
    file: &Path,
    machine: MachineFacts,
    progress: &Progress,
) -> Result<Prepared, Ended> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Ended::new(ExitClass::Io, &error, None))?;
    let (workspace, _) = api::load("workspace.yaml", &text).map_err(Ended::faults)?;
    let (target, options) = output(&workspace, progress)?;
    if let Some(target) = &target {
        oci::blocking::check_push(target, &options).map_err(|error| Ended::registry(&error))?;
    }
    let (data, resolved, gpu) = resolve(role, &workspace, machine, progress)?;
    Ok(Prepared { workspace, data, resolved, gpu, target, options })
}

fn estimate(prepared: &Prepared) -> Estimate {
    let Prepared { data, resolved, .. } = prepared;
    let base_model = &resolved.run_spec.base_model;
    Estimate {
        examples: data.facts.train.examples,
        training_tokens: resolved.estimate.training_tokens,
        memory: resolved.estimate.memory_total,
        gpu_memory: prepared.gpu.as_ref().map(|gpu| gpu.memory),
        smaller: prepared.gpu.as_ref().map(|gpu| gpu.smaller.clone()).unwrap_or_default(),
        seconds: resolved.estimate.seconds,
        base_model: Some(base_model.reference.clone()),
    }
}

/// Trains, or goes on where an earlier attempt was, and publishes.
fn train(
    prepared: &Prepared,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Termination, Ended> {
    let spec = &prepared.resolved.run_spec;
    let pusher = checkpoints(prepared, progress)?;
    let read = Some(prepared.data.clone());
    let given = Given { read, cache: crate::token_cache() };
    let result = train::run_on(spec, given, stop, &mut |event| {
        if let (Event::Saved { step, path }, Some(pusher)) = (event, &pusher) {
            pusher.saved(*step, path);
        }
        progress.hear(event);
    });
    let ended = |ended: Ended| {
        // The same data would be refused again; everything else is begun from here.
        if let (true, Some(pusher)) = (ended.class != ExitClass::Configuration, &pusher) {
            pusher.push_last();
        }
        ended.after(progress)
    };
    let outcome = result.map_err(|error| ended(Ended::new(error.class(), &error, error.hint())))?;
    progress.stage(Stage::Publishing);
    let start = Instant::now();
    let adapter = publish(prepared, &outcome).map_err(|error| ended(Ended::registry(&error)))?;
    let push_seconds = adapter.is_some().then(|| start.elapsed().as_secs_f64());
    if let Some(pusher) = &pusher {
        pusher.discard();
    }
    let TrainerStatus { progress, resumed_from, .. } = progress.status();
    let evaluation = crate::scores(&outcome);
    let done =
        Termination { adapter, evaluation, progress, resumed_from, ..Termination::default() };
    Ok(Termination { push_seconds, ..done })
}

fn publish(prepared: &Prepared, outcome: &Outcome) -> Result<Option<AdapterStatus>, oci::Error> {
    let Some(target) = &prepared.target else { return Ok(None) };
    let options = Options { attempts: PUSH_ATTEMPTS, ..prepared.options.clone() };
    let origin = Origin {
        spec: &prepared.resolved.run_spec,
        data_digest: Some(&prepared.data.facts.digest),
    };
    let pushed = crate::publish(outcome, &origin, target, &options)?;
    Ok(Some(AdapterStatus {
        image: pushed.target.to_string(),
        digest: pushed.digest,
        size: i64::try_from(pushed.size).ok(),
    }))
}

/// Brings back what an earlier attempt left in the registry, and sends there what this one saves.
fn checkpoints(prepared: &Prepared, progress: &Progress) -> Result<Option<Pusher>, Ended> {
    let spec = &prepared.resolved.run_spec;
    let wanted = prepared.workspace.checkpoints.to == CheckpointPlace::Registry;
    let target = prepared.target.as_ref().filter(|_| wanted);
    let remote = target.and_then(|target| Remote::beside(target, spec, &prepared.options));
    let Some(remote) = remote else { return Ok(None) };
    let held = match remote.restore(spec).map_err(|error| Ended::registry(&error))? {
        Found::Nothing => None,
        Found::Restored(checkpoint) => {
            progress.found(checkpoint.clone());
            Some(checkpoint)
        }
        Found::Refused(why) => {
            let message = format!("the checkpoint in the registry cannot be used: {why}");
            progress.warn(message, Some("the run begins with its first step".to_owned()));
            None
        }
    };
    let every = match spec.checkpoints.every_seconds {
        0 => CHECKPOINT_INTERVAL,
        seconds => Duration::from_secs(seconds),
    };
    let progress = progress.clone();
    let told = move |told| progress.pushed(told);
    Ok(Some(Pusher::start(remote, &spec.output.dir, every, held, told)))
}

/// Where the adapter goes, and how its registry is spoken to.
fn output(workspace: &Workspace, progress: &Progress) -> Result<(Option<Target>, Options), Ended> {
    let image = workspace.output.image.as_ref();
    let plain = std::env::var("ANNEAL_PLAIN_HTTP").unwrap_or_default();
    let plain_http = image.is_some_and(|image| plain.split(',').any(|host| host == image.registry));
    let ca_file = std::env::var_os("ANNEAL_CA_FILE").map(PathBuf::from);
    let progress = progress.clone();
    let on_event = Arc::new(move |_: &oci::Event| progress.is_at_work());
    let options = Options { ca_file, plain_http, on_event, ..Options::default() };
    let target = image.map(|image| image.to_string().parse::<Target>()).transpose();
    let target = target.map_err(|error| Ended::registry(&oci::Error::Reference(error)))?;
    Ok((target, options))
}

/// Looks at model and data, and lets `plan` choose, as everywhere; in preflight for the GPU that the run
/// will get.
fn resolve(
    role: Role,
    workspace: &Workspace,
    machine: MachineFacts,
    progress: &Progress,
) -> Result<(Dataset, plan::Resolved, Option<Asked>), Ended> {
    let configuration =
        |error: &dyn std::error::Error, hint| Ended::new(ExitClass::Configuration, error, hint);
    let sources = mounts::sources(workspace, progress)?;
    let files = ModelFiles::open(&sources.base_model.path)
        .map_err(|error| configuration(&error, error.hint()))?;
    let model = train::model_facts(&files).map_err(|error| configuration(&error, error.hint()))?;
    let tokenizer = Tokenizer::open(&files).map_err(|error| configuration(&error, error.hint()))?;
    let block = plan::data_block(workspace, model.context, &sources);
    let cache = crate::token_cache();
    let seed = plan::seed(workspace);
    let data = Dataset::read(&block, &tokenizer, seed, cache.as_deref(), &mut |_, _| {});
    let DataFacts { faults, fault_count, .. } = &data.facts;
    if *fault_count > 0 {
        let mut ended = Ended::faults(faults.clone());
        ended.message.message = format!("the data has {fault_count} faults");
        return Err(ended);
    }
    if data.from_cache {
        tracing::info!("tokens: from the cache");
    }
    let inputs = plan::Inputs { model, data: data.facts.clone(), machine, sources };
    let chosen = match role {
        Role::Preflight => plan::preflight(workspace, &inputs),
        Role::Train => plan::resolve(workspace, &inputs).map(|resolved| (resolved, None)),
    };
    let (mut resolved, gpu) = chosen.map_err(Ended::faults)?;
    let tokens = &mut resolved.run_spec.training.micro_batch_tokens;
    *tokens = (*tokens >> halvings()).max(1);
    Ok((data, resolved, gpu))
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
