//! Before the first step: the model, the data, and the checkpoint to go on from.

use api::RunSpec;
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;

use super::Given;
use crate::checkpoint::{Checkpoint, Checkpoints, State};
use crate::data::Dataset;
use crate::error::{RunError, with_sources};
use crate::event::{Activity, Event, Started};
use crate::events::Events;
use crate::facts::model_facts;
use crate::run_dir::RunDir;
use crate::runtime;
use crate::session::{Session, device};

/// A run that is ready for its next step.
pub(super) struct Begun {
    pub(super) files: ModelFiles,
    pub(super) tokenizer: Tokenizer,
    pub(super) data: Dataset,
    pub(super) session: Session,
    pub(super) state: State,
    /// The step of the checkpoint that it goes on from.
    pub(super) saved: Option<u64>,
}

/// Finds the checkpoint to go on from and opens the events as they were then. Damaged checkpoints
/// are named in a warning and taken out of the way.
pub(super) fn newest(
    dir: &RunDir,
    checkpoints: &Checkpoints,
    events: &mut Events<'_>,
) -> Result<Option<Checkpoint>, RunError> {
    let (found, skipped) = checkpoints.newest()?;
    events.open(&dir.events(), found.as_ref().map_or(0, |found| found.state.events))?;
    for skipped in &skipped {
        checkpoints.set_aside(skipped)?;
        events.emit(&Event::Warning {
            message: format!(
                "the checkpoint `{}` cannot be used: {}",
                skipped.path.display(),
                skipped.why
            ),
            hint: Some("an earlier one is used; the disk may be failing".to_owned()),
        })?;
    }
    Ok(found)
}

/// Loads everything but the data that were `read` already, and tells how the run stands.
pub(super) fn begin(
    dir: &RunDir,
    found: Option<Checkpoint>,
    given: Given,
    events: &mut Events<'_>,
) -> Result<Begun, RunError> {
    let spec = dir.spec();
    let threads = spec.compute.threads.unwrap_or_else(runtime::available_threads);
    tch::set_num_threads(threads as i32);

    events.doing("reading the data");
    let (files, tokenizer) = open_model(spec)?;
    let told_before = found.as_ref().and_then(|found| found.state.told_time);
    let told_now = given.read.as_ref().map_or(tokenizer.told_time(), Dataset::told_time);
    let tokenizer = tokenizer.telling(told_before.unwrap_or(told_now));
    let data = data(spec, &tokenizer, given, events)?;

    events.doing("loading the base model");
    events.show(&Event::Progress { what: Activity::LoadingModel, done: 0, total: 1 });
    let mut session = Session::open(spec, &files)?;
    events.show(&Event::Progress { what: Activity::LoadingModel, done: 1, total: 1 });

    let started = started(dir, &files, &data, &session, threads)?;
    let (mut state, saved) = if let Some(Checkpoint { path, state }) = found {
        session.restore(&path, state.step)?;
        let step = state.step;
        // `Started` is in the file already; a caller sees it again.
        events.show(&Event::Started(Box::new(started)));
        events.emit(&Event::Resumed { step, steps: spec.training.steps, checkpoint: path })?;
        (state, Some(step))
    } else {
        events.emit(&Event::Started(Box::new(started)))?;
        (State::default(), None)
    };
    state.told_time = Some(tokenizer.told_time());
    Ok(Begun { files, tokenizer, data, session, state, saved })
}

/// The examples: those that the caller has read, if they are the run's, or read now.
fn data(
    spec: &RunSpec,
    tokenizer: &Tokenizer,
    given: Given,
    events: &mut Events<'_>,
) -> Result<Dataset, RunError> {
    let seed = spec.training.seed;
    let Given { read, cache } = given;
    if let Some(data) = read.filter(|data| data.is_what(&spec.data, seed, tokenizer)) {
        return Ok(data.whole()?);
    }
    let what = Activity::ReadingData;
    let mut tell = |done, total| events.show(&Event::Progress { what, done, total });
    Ok(Dataset::read(&spec.data, tokenizer, seed, cache.as_deref(), &mut tell).whole()?)
}

fn open_model(spec: &RunSpec) -> Result<(ModelFiles, Tokenizer), RunError> {
    let files = ModelFiles::open(&spec.base_model.path).map_err(|error| {
        RunError::configuration(with_sources(&error), error.hint().unwrap_or_default())
    })?;
    let tokenizer = Tokenizer::open(&files).map_err(|error| {
        RunError::configuration(with_sources(&error), error.hint().unwrap_or_default())
    })?;
    Ok((files, tokenizer))
}

fn started(
    dir: &RunDir,
    files: &ModelFiles,
    data: &Dataset,
    session: &Session,
    threads: usize,
) -> Result<Started, RunError> {
    let spec = dir.spec();
    let facts = model_facts(files).map_err(|error| {
        RunError::configuration(with_sources(&error), error.hint().unwrap_or_default())
    })?;
    let trained = session.model().trainable().iter();
    Ok(Started {
        name: spec.name.clone(),
        revision: spec.revision.clone(),
        dir: dir.path().to_owned(),
        base_model: spec.base_model.reference.clone(),
        base_model_digest: spec.base_model.digest.clone(),
        steps: spec.training.steps,
        epochs: spec.training.epochs,
        train_examples: data.train.len() as u64,
        validation_examples: data.validation.len() as u64,
        test_examples: data.test.len() as u64,
        parameters: facts.parameters,
        trainable_parameters: trained.map(|param| param.value().numel() as u64).sum(),
        threads: threads as u64,
        device: match device(spec)? {
            tch::Device::Cuda(index) => format!("cuda:{index}"),
            tch::Device::Cpu | tch::Device::Mps | tch::Device::Vulkan => "cpu".to_owned(),
        },
    })
}
