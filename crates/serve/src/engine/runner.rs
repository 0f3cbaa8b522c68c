//! The engine's thread: takes commands between steps, runs one step after another, hands out tokens.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use lm::adapters::{Adapter, Requirements, Routes};
use lm::files::ModelFiles;
use lm::kv_cache::KvCache;
use lm::layers::Quantization;
use lm::model::{LoadOptions, Model};
use lm::packed::Packed;
use lm::paged::{BLOCK_TOKENS, PagedCache, Span};
use lm::sample::{Drawn, Seen, draw};
use tch::{Device, Kind, Tensor};
use tokio::sync::mpsc::UnboundedSender;

use super::residents::{Found, Residents};
use super::{Command, EngineOptions, Event, Facts, Failed, Finish, StartError, Submission};
use crate::metrics::Metrics;
use crate::scheduler::{Limits, NewSequence, Scheduler, SequenceId, Step};

/// What the thread is started with.
pub(super) struct Setup {
    pub(super) files: ModelFiles,
    pub(super) options: EngineOptions,
    pub(super) metrics: Arc<Metrics>,
    pub(super) healthy: Arc<AtomicBool>,
    pub(super) commands: Receiver<Command>,
    /// Where adapters that were read again are sent to.
    pub(super) loaded: Sender<Command>,
}

/// A sequence that is answered or waits.
struct Live {
    submission: Submission,
    adapter: Option<Rc<Adapter>>,
    answer: Vec<u32>,
    events: UnboundedSender<Event>,
    arrived: Instant,
    last: Option<Instant>,
}

struct Runner {
    setup: Setup,
    model: Model,
    facts: Facts,
    cache: RefCell<KvCache>,
    scheduler: Scheduler,
    live: HashMap<SequenceId, Live>,
    next: SequenceId,
    residents: Residents,
    /// Sequences whose adapter is being read again.
    parked: HashMap<u64, Vec<(Submission, UnboundedSender<Event>)>>,
}

/// Loads the model, tells so, and works until nobody can send commands any more.
pub(super) fn run(setup: Setup, told: &mpsc::Sender<Result<Facts, StartError>>) {
    let _guard = tch::no_grad_guard();
    match Runner::new(setup) {
        Ok(mut runner) => {
            let _ = told.send(Ok(runner.facts.clone()));
            runner.work();
        }
        Err(error) => {
            let _ = told.send(Err(error));
        }
    }
}

impl Runner {
    fn new(setup: Setup) -> Result<Self, StartError> {
        let options = &setup.options;
        let (kind, device) = (options.kind, options.device);
        let quantization = options.int8.then_some(Quantization::Int8);
        let mut model = Model::load(&setup.files, LoadOptions { kind, device, quantization })?;
        if let Some(format) = quantization {
            model.quantize_head(format);
        }
        let paged = PagedCache::new(model.config(), kind, device, options.cache_bytes)?;
        let limits = Limits {
            sequences: options.sequences,
            step_tokens: options.step_tokens.max(options.sequences),
            blocks: paged.blocks(),
            block_tokens: BLOCK_TOKENS as usize,
        };
        let scheduler = Scheduler::new(limits);
        let own = model.config().max_position_embeddings as usize;
        let context = options.context.unwrap_or(own).min(own).min(scheduler.longest());
        let facts = Facts {
            context,
            vocabulary: model.config().vocab_size as usize,
            shapes: model.linear_shapes(),
            long_from: model.long_from(),
            cache_bytes: paged.bytes(),
        };
        let residents = Residents::new(options.adapter_bytes);
        let cache = RefCell::new(KvCache::Paged(paged));
        let (live, parked) = (HashMap::new(), HashMap::new());
        Ok(Self { setup, model, facts, cache, scheduler, live, next: 0, residents, parked })
    }

    fn work(&mut self) {
        loop {
            if self.scheduler.is_idle() {
                self.residents.sweep();
                self.tell();
                let received = match self.residents.again() {
                    Some(pause) => self.setup.commands.recv_timeout(pause),
                    None => self.setup.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match received {
                    Ok(command) => self.take(command),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            while let Ok(command) = self.setup.commands.try_recv() {
                self.take(command);
            }
            self.drop_abandoned();
            if !self.scheduler.is_idle() {
                self.step();
            }
        }
    }

    fn tell(&self) {
        let (bytes, count) = (self.residents.bytes(), self.residents.count());
        self.setup.metrics.engine(&self.scheduler.counts(), bytes, count);
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission, events) => self.submit(*submission, events),
            Command::Offer { revision, adapter, folder } => {
                self.residents.offer(revision, *adapter, folder);
            }
            Command::Retire { revision } => self.residents.retire(revision),
            Command::Loaded { revision, adapter } => {
                let parked = self.parked.remove(&revision).unwrap_or_default();
                match adapter {
                    Ok(adapter) => {
                        self.residents.restore(revision, *adapter);
                        for (submission, events) in parked {
                            self.submit(submission, events);
                        }
                        self.residents.sweep();
                    }
                    Err(error) => {
                        for (_, events) in parked {
                            let failed = Failed::Adapter(error.to_string());
                            let _ = events.send(Event::Failed(failed));
                        }
                    }
                }
            }
        }
    }

    fn submit(&mut self, submission: Submission, events: UnboundedSender<Event>) {
        let revision = submission.adapter;
        let adapter = if revision == 0 {
            None
        } else {
            match self.residents.find(revision) {
                Found::Here(adapter) => Some(adapter),
                Found::Gone => {
                    let _ = events.send(Event::Failed(Failed::Gone));
                    return;
                }
                Found::Away(folder) => {
                    let parked = self.parked.entry(revision).or_default();
                    parked.push((submission, events));
                    if parked.len() == 1 {
                        self.read_again(revision, folder);
                    }
                    return;
                }
            }
        };
        self.next += 1;
        let id = self.next;
        let reach = submission.prompt.len() + submission.max_tokens;
        let is_long = self.facts.long_from.is_some_and(|from| reach > from);
        self.scheduler.add(NewSequence {
            id,
            prompt: submission.prompt.clone(),
            adapter: revision,
            family: 2 * revision + u64::from(is_long),
        });
        let (arrived, answer) = (Instant::now(), Vec::new());
        let live = Live { submission, adapter, answer, events, arrived, last: None };
        self.live.insert(id, live);
    }

    /// Reads an adapter that had to leave memory, beside the steps.
    fn read_again(&self, revision: u64, folder: std::path::PathBuf) {
        let (loaded, options) = (self.setup.loaded.clone(), &self.setup.options);
        let (max_rank, kind, device) = (options.max_rank, options.kind, options.device);
        let shapes = self.facts.shapes.clone();
        std::thread::spawn(move || {
            let needs = Requirements { shapes: &shapes, max_rank, kind, device };
            let adapter = Adapter::open(&folder, &needs).map(Box::new);
            let _ = loaded.send(Command::Loaded { revision, adapter });
        });
    }

    /// Ends what nobody listens to any more.
    fn drop_abandoned(&mut self) {
        let abandoned: Vec<SequenceId> = self
            .live
            .iter()
            .filter(|(_, live)| live.events.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in abandoned {
            self.setup.metrics.finished("abort");
            self.end(id);
        }
    }

    fn end(&mut self, id: SequenceId) {
        self.scheduler.end(id);
        self.live.remove(&id);
        self.residents.sweep();
    }

    fn step(&mut self) {
        let step = self.scheduler.plan();
        self.tell();
        match catch_unwind(AssertUnwindSafe(|| self.forward(&step))) {
            Ok(drawn) => {
                for (id, drawn) in drawn {
                    self.hand_out(id, drawn);
                }
            }
            Err(panic) => {
                // Out of memory, most likely: nothing is known of the cache any more.
                self.setup.healthy.store(false, Ordering::Release);
                let text = panic_text(&*panic);
                tracing::error!("the model failed: {text}");
                for (id, live) in std::mem::take(&mut self.live) {
                    let _ = live.events.send(Event::Failed(Failed::Model(text.clone())));
                    self.scheduler.end(id);
                }
            }
        }
    }

    /// Runs a step; a token for each sequence that is complete so far.
    fn forward(&mut self, step: &Step) -> Vec<(SequenceId, Drawn)> {
        let (mut ids, mut pieces, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let (mut wanted, mut drawing, mut routes) = (Vec::new(), Vec::new(), Routes::new());
        for work in &step.work {
            let (start, length) = (ids.len() as i64, work.tokens.len() as i64);
            let live = self.live.get(&work.id).expect("what is scheduled is live");
            if let Some(adapter) = &live.adapter {
                routes.push(adapter, start, length);
            }
            ids.extend(work.tokens.iter().map(|id| i64::from(*id)));
            // Which frequencies LongRoPE takes must not change while a sequence grows.
            let reach = live.submission.prompt.len() + live.submission.max_tokens;
            pieces.push((work.start as i64, length, reach as i64));
            let blocks = work.blocks.iter().map(|block| *block as i64).collect();
            spans.push(Span { blocks, start: work.start as i64, length });
            if work.draws {
                wanted.push(start + length - 1);
                drawing.push(work.id);
            }
            if live.last.is_none() {
                self.setup.metrics.prompt_tokens(length as u64);
            }
        }
        if let KvCache::Paged(paged) = &mut *self.cache.borrow_mut() {
            paged.begin(spans);
        }
        let packed = Packed::pieces(&ids, &pieces, self.setup.options.device);
        let logits = self.model.step(&packed, &self.cache, &routes, &wanted);
        drop(routes);
        self.draw(&logits, drawing)
    }

    fn draw(&mut self, logits: &Tensor, drawing: Vec<SequenceId>) -> Vec<(SequenceId, Drawn)> {
        let plain = |live: &Live| {
            live.submission.guide.is_none() && live.submission.sampling.is_plain_greedy()
        };
        let any_plain = drawing.iter().any(|id| plain(&self.live[id]));
        let best: Vec<i64> = if any_plain {
            let best = logits.argmax(-1, false).to_device(Device::Cpu);
            Vec::try_from(best).expect("a list of int64")
        } else {
            Vec::new()
        };
        let mut all = Vec::with_capacity(drawing.len());
        for (row, id) in drawing.into_iter().enumerate() {
            let live = self.live.get_mut(&id).expect("what is drawn for is live");
            let drawn = if plain(live) {
                Drawn { id: best[row] as u32, ..Drawn::default() }
            } else {
                let values = logits.get(row as i64).to_kind(Kind::Float).to_device(Device::Cpu);
                let mut values = Vec::<f32>::try_from(values).expect("a row of fp32 logits");
                let (step, ends) = (live.answer.len(), &live.submission.ends);
                let allowed = live.submission.guide.as_mut().map(|guide| guide.allowed(ends));
                let seen = Seen { prompt: &live.submission.prompt, answer: &live.answer };
                let sampling = &live.submission.sampling;
                draw(&mut values, sampling, seen, step, allowed.as_deref())
            };
            all.push((id, drawn));
        }
        all
    }

    fn hand_out(&mut self, id: SequenceId, drawn: Drawn) {
        let live = self.live.get_mut(&id).expect("what was drawn for is live");
        let (token, now) = (drawn.id, Instant::now());
        let metrics = &self.setup.metrics;
        match live.last.replace(now) {
            None => metrics.first_token(now - live.arrived),
            Some(last) => metrics.next_token(now - last),
        }
        let ended = live.submission.ends.contains(&token);
        if !ended {
            live.answer.push(token);
            let _ = live.events.send(Event::Token(drawn));
            self.scheduler.drawn(id, token);
        }
        let complete = live.submission.guide.as_mut().is_some_and(|guide| guide.take(token));
        let finish = if ended || complete {
            Some(Finish::Stop)
        } else if live.answer.len() >= live.submission.max_tokens {
            Some(Finish::Length)
        } else {
            None
        };
        if let Some(finish) = finish {
            let _ = live.events.send(Event::Done(finish));
            let reason = if finish == Finish::Stop { "stop" } else { "length" };
            metrics.finished(reason);
            metrics.whole_answer(live.arrived.elapsed());
            self.end(id);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    text.lines().next().unwrap_or_default().to_owned()
}
