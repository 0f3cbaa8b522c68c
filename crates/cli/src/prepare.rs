//! From a file to a run: read the YAML, fetch model and data, look at both, and let `plan` choose.
//! `validate`, `plan` and `run` are the same up to here.

use std::io::Read as _;
use std::path::PathBuf;

use api::run_spec::BaseModel;
use api::valid::Workspace;
use api::{DataFacts, Fault, MachineFacts, ModelFacts};
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use train::ExitClass;
use train::data::{Dataset, Tell};

use crate::args::{RegistryArgs, WorkspaceArgs};
use crate::failure::Failure;
use crate::machine;
use crate::sources::{self, LocalModel};
use crate::view::format;
use crate::view::progress::Screen;

/// A workspace and the file it stands in.
#[derive(Debug)]
pub(crate) struct Document {
    /// As the user named it.
    pub(crate) file: String,
    pub(crate) workspace: Workspace,
    positions: api::yaml::Positions,
}

/// Everything that a run or a plan is made of.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) model: ModelFacts,
    pub(crate) data: DataFacts,
    pub(crate) machine: MachineFacts,
    pub(crate) resolved: plan::Resolved,
    /// The GPU that the run would take in a cluster.
    pub(crate) sizing: Option<plan::Sizing>,
    pub(crate) examples: Dataset,
}

/// Reads and checks the YAML.
pub(crate) fn read(args: &WorkspaceArgs) -> Result<Document, Failure> {
    let file = args.filename.clone();
    let text = if file == "-" { from_stdin() } else { std::fs::read(&file) };
    let bytes = text.map_err(|error| {
        Failure::configuration(format!("cannot read the workspace `{file}`: {error}"))
            .with_hint("name a YAML file with -f FILE, or - for the standard input")
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::configuration(format!("the workspace `{file}` is not UTF-8 at byte {at}"))
            .with_hint("name a YAML file, and save it as UTF-8")
    })?;
    let shown = if file == "-" { "standard input" } else { &file };
    let (workspace, document) =
        api::yaml::load(shown, &text).map_err(|faults| Failure::faults(shown, faults, 0))?;
    Ok(Document { file, workspace, positions: document.positions })
}

fn from_stdin() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Fetches the sources, looks at them, and resolves what the workspace leaves open.
pub(crate) fn resolve(
    document: &Document,
    registry: &RegistryArgs,
    catalogue: &plan::Catalogue,
    screen: &mut Screen,
) -> Result<Prepared, Failure> {
    let workspace = &document.workspace;
    let fetched = |name: &str, done: u64, total: u64| {
        if done == 0 || done == total {
            eprintln!("fetching {name}{}", size(total));
        }
    };
    let local = sources::model(&workspace.base_model, registry, &fetched)?;
    screen.doing("looking at the base model");
    let (files, model) = look_at(&local)?;
    let sources = locate(document, local, registry, &fetched)?;
    screen.doing("reading the data");
    let mut tell = |done, total| screen.reading(done, total);
    let examples = survey(document, &sources, &files, &model, &mut tell)?;
    if examples.from_cache {
        screen.note("tokens: from the cache");
    }
    let data = examples.facts.clone();
    let machine = machine::facts();
    let inputs = plan::Inputs { model, data, machine, sources };
    let resolved =
        plan::resolve(workspace, &inputs).map_err(|faults| document.failure(faults, 0))?;
    let sizing = plan::sizing(workspace, &inputs, catalogue);
    let plan::Inputs { model, data, machine, sources: _ } = inputs;
    Ok(Prepared { model, data, machine, resolved, sizing, examples })
}

impl Document {
    /// Faults that were found by field path, with the line in the file.
    fn failure(&self, faults: Vec<Fault>, count: u64) -> Failure {
        let faults = faults.into_iter().map(|fault| self.positions.locate(fault)).collect();
        Failure::faults(&self.file, faults, count)
    }
}

fn size(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(" ({})", format::bytes(bytes)) }
}

/// The base model's shape, from its headers.
fn look_at(local: &LocalModel) -> Result<(ModelFiles, ModelFacts), Failure> {
    let fail = |error: &dyn std::error::Error, hint| {
        let failure = Failure::of(ExitClass::Configuration, error);
        Failure { hint, ..failure }
    };
    let files = ModelFiles::open(&local.path).map_err(|error| fail(&error, error.hint()))?;
    let facts = train::model_facts(&files).map_err(|error| fail(&error, error.hint()))?;
    Ok((files, facts))
}

/// Where everything is on this machine.
fn locate(
    document: &Document,
    model: LocalModel,
    registry: &RegistryArgs,
    fetched: sources::Tell<'_>,
) -> Result<plan::Sources, Failure> {
    let workspace = &document.workspace;
    let data = sources::data(workspace, registry, fetched)
        .map_err(|failure| failure.located(|fault| document.positions.locate(fault)))?;
    let LocalModel { path, reference, digest } = model;
    let dir = || PathBuf::from(".anneal").join(workspace.name.as_str());
    Ok(plan::Sources {
        base_model: BaseModel { path, reference, digest },
        train: data.train,
        validation: data.validation,
        test: data.test,
        output_dir: workspace.output.dir.clone().unwrap_or_else(dir),
    })
}

/// Reads all examples; every fault in them ends it.
fn survey(
    document: &Document,
    sources: &plan::Sources,
    files: &ModelFiles,
    model: &ModelFacts,
    tell: &mut Tell<'_>,
) -> Result<Dataset, Failure> {
    let tokenizer = Tokenizer::open(files).map_err(|error| {
        let failure = Failure::of(ExitClass::Configuration, &error);
        Failure { hint: error.hint(), ..failure }
    })?;
    let workspace = &document.workspace;
    let block = plan::data_block(workspace, model.context, sources);
    let seed = plan::seed(workspace);
    let cache = trainer_image::token_cache();
    let examples = Dataset::read(&block, &tokenizer, seed, cache.as_deref(), tell);
    if examples.facts.fault_count == 0 {
        return Ok(examples);
    }
    let DataFacts { faults, fault_count, .. } = examples.facts;
    Err(Failure::faults("the data", faults, fault_count))
}
