//! The engine: one thread that owns the model and answers many sequences at once.
//!
//! Everybody else holds an [`Engine`], through which sequences go in and tokens come out. An [`Answer`] that
//! is dropped gives its room back before the next step.

mod residents;
mod runner;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use lm::adapters::{Adapter, AdapterError, LinearShapes, Requirements};
use lm::files::ModelFiles;
use lm::sample::{Drawn, Sampling};
use tch::{Device, Kind};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::guide::Guide;
use crate::metrics::Metrics;

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Number format of activations, and of weights that are not rounded.
    pub kind: Kind,
    /// Holds the matrices of the linear layers as int8.
    pub int8: bool,
    pub device: Device,
    /// Bytes of the key-value cache, allocated at the start.
    pub cache_bytes: u64,
    /// Bytes of adapters in memory; more only while more are in use at once.
    pub adapter_bytes: u64,
    pub max_rank: i64,
    /// Sequences that are answered at once.
    pub sequences: usize,
    /// Sequences that may wait beside them.
    pub waiting: usize,
    /// Tokens of one step.
    pub step_tokens: usize,
    /// Longest sequence; the model's own limit where absent.
    pub context: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            kind: Kind::Float,
            int8: false,
            device: Device::Cpu,
            cache_bytes: 1 << 30,
            adapter_bytes: 1 << 30,
            max_rank: 64,
            sequences: 32,
            waiting: 256,
            step_tokens: 512,
            context: None,
        }
    }
}

/// What the loaded model is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Most tokens of prompt and answer together.
    pub context: usize,
    pub vocabulary: usize,
    pub shapes: LinearShapes,
    /// Sequences beyond this length turn their positions otherwise (LongRoPE).
    pub long_from: Option<usize>,
    /// Bytes of the key-value cache.
    pub cache_bytes: usize,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot load the base model")]
    Model(#[from] lm::model::ModelError),
    #[error(transparent)]
    Cache(#[from] lm::paged::PagedError),
    #[error("cannot start the engine's thread")]
    Thread { source: std::io::Error },
    #[error("the engine ended while it started")]
    Ended,
}

/// One sequence to answer.
#[derive(Debug)]
pub struct Submission {
    pub prompt: Vec<u32>,
    /// Revision of the adapter; 0 is the base model.
    pub adapter: u64,
    pub sampling: Sampling,
    pub max_tokens: usize,
    /// Tokens that end the answer.
    pub ends: Vec<u32>,
    /// What the answer has to look like.
    pub guide: Option<Guide>,
}

/// What becomes of a sequence.
#[derive(Debug)]
pub enum Event {
    Token(Drawn),
    Done(Finish),
    Failed(Failed),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Stop,
    Length,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The revision is not held any more; a newer one may be.
    #[error("the adapter's revision is not served any more")]
    Gone,
    #[error("cannot read the adapter again: {0}")]
    Adapter(String),
    #[error("the model failed while it answered: {0}")]
    Model(String),
}

/// Too much is waiting already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// A way to the engine. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    facts: Facts,
    options: EngineOptions,
    in_flight: AtomicUsize,
    next: AtomicU64,
    healthy: Arc<AtomicBool>,
}

enum Command {
    Submit(Box<Submission>, tokio::sync::mpsc::UnboundedSender<Event>),
    Offer { revision: u64, adapter: Box<Adapter>, folder: PathBuf },
    Retire { revision: u64 },
    Loaded { revision: u64, adapter: Result<Box<Adapter>, AdapterError> },
}

/// Tokens of one sequence as they are drawn.
#[derive(Debug)]
pub struct Answer {
    pub events: UnboundedReceiver<Event>,
    _place: Place,
}

/// One of the places among those that are answered or wait.
#[derive(Debug)]
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Engine {
    /// Loads the model and starts to work. Comes back when the model is loaded.
    pub fn start(
        files: ModelFiles,
        options: EngineOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let (commands, received) = mpsc::channel();
        let (told, hear) = mpsc::channel();
        let healthy = Arc::new(AtomicBool::new(true));
        let setup = runner::Setup {
            files,
            options: options.clone(),
            metrics,
            healthy: Arc::clone(&healthy),
            commands: received,
            loaded: commands.clone(),
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || runner::run(setup, &told))
            .map_err(|source| StartError::Thread { source })?;
        let facts = hear.recv().map_err(|_| StartError::Ended)??;
        let (in_flight, next) = (AtomicUsize::new(0), AtomicU64::new(1));
        let shared = Arc::new(Shared { facts, options, in_flight, next, healthy });
        Ok(Self { commands, shared })
    }

    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    pub fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    /// Whether the model still works.
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Sequences that are answered or wait.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// What an adapter has to be to be served here.
    pub fn requirements(&self) -> Requirements<'_> {
        let options = &self.shared.options;
        Requirements {
            shapes: &self.shared.facts.shapes,
            max_rank: options.max_rank,
            kind: options.kind,
            device: options.device,
        }
    }

    /// Sends all sequences of one request to be answered, or none.
    pub fn submit(&self, submissions: Vec<Submission>) -> Result<Vec<Answer>, Overloaded> {
        let (count, shared) = (submissions.len(), &self.shared);
        let most = shared.options.sequences + shared.options.waiting;
        let before = shared.in_flight.fetch_add(count, Ordering::AcqRel);
        let places: Vec<Place> = (0..count).map(|_| Place(Arc::clone(shared))).collect();
        if before + count > most {
            return Err(Overloaded);
        }
        let answers = submissions.into_iter().zip(places).map(|(submission, place)| {
            let (sender, events) = tokio::sync::mpsc::unbounded_channel();
            // If the engine has ended, so has the channel that the answer is read from.
            let _ = self.commands.send(Command::Submit(Box::new(submission), sender));
            Answer { events, _place: place }
        });
        Ok(answers.collect())
    }

    /// Hands over a verified adapter; its revision's number is used from now on. `folder` holds its files,
    /// for when it has to leave memory for a while.
    pub fn offer(&self, adapter: Adapter, folder: PathBuf) -> u64 {
        let revision = self.shared.next.fetch_add(1, Ordering::AcqRel);
        let adapter = Box::new(adapter);
        let _ = self.commands.send(Command::Offer { revision, adapter, folder });
        revision
    }

    /// Lets a revision go once its last answer has ended.
    pub fn retire(&self, revision: u64) {
        let _ = self.commands.send(Command::Retire { revision });
    }
}
