//! `anneal chat`: one prompt, the answers of the base model and of each adapter beside each other.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;

use api::model_server::Weights;
use comfy_table::{ContentArrangement, Table, presets};
use lm::adapters::Adapter;
use lm::chat::Message;
use lm::files::ModelFiles;
use lm::sample::Sampling;
use lm::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use serve::adapters::declared::Source;
use serve::engine::{Answer, Engine, EngineOptions, Event, Submission};
use serve::metrics::Metrics;
use tch::Device;
use train::ExitClass;

use super::serve::{kind, short};
use crate::args::{ChatArgs, Output, PrecisionArg};
use crate::failure::Failure;
use crate::sources::{self, LocalAdapter};
use crate::{say, server_file};

/// Columns of a table where there is no terminal to ask.
const WIDTH: u16 = 120;

/// Answers line by line until there is no more.
pub(crate) fn run(args: &ChatArgs) -> Result<(), Failure> {
    let chosen = chosen(args)?;
    let files = ModelFiles::open(&chosen.model).map_err(|e| failure(&e, e.hint()))?;
    let tokenizer = Tokenizer::open(&files).map_err(|e| failure(&e, e.hint()))?;
    if tokenizer.chat().is_none() {
        return Err(Failure::configuration("the base model has no chat template")
            .with_hint("`anneal generate --raw` continues a text"));
    }
    let metrics = Metrics::new(&chosen.name).map_err(|error| internal(&error))?;
    let options = EngineOptions {
        kind: kind(chosen.precision),
        int8: chosen.int8,
        device: Device::cuda_if_available(),
        ..EngineOptions::default()
    };
    let engine = Engine::start(files, options, Arc::new(metrics))
        .map_err(|error| Failure::of(ExitClass::Configuration, &error))?;
    let mut talks = vec![Talk::new(chosen.name, 0, args)];
    for (name, folder) in chosen.adapters {
        let adapter = Adapter::open(&folder, &engine.requirements()).map_err(|error| {
            let failure = Failure::of(ExitClass::Configuration, &error);
            Failure { message: format!("adapter `{name}`: {}", failure.message), ..failure }
        })?;
        talks.push(Talk::new(name, engine.offer(adapter, folder), args));
    }
    converse(&engine, &tokenizer, &mut talks, args)
}

/// What answers: paths on this machine.
struct Chosen {
    model: PathBuf,
    name: String,
    adapters: Vec<(String, PathBuf)>,
    precision: PrecisionArg,
    int8: bool,
}

fn chosen(args: &ChatArgs) -> Result<Chosen, Failure> {
    let tell = |_: &str, _: u64, _: u64| {};
    if let Some(file) = &args.filename {
        let server = server_file::read(file)?;
        let adapters = server.spec.adapters.iter().map(|adapter| {
            let place = match server_file::source(adapter) {
                Source::Image(image) => image,
                Source::Folder(folder) => folder.display().to_string(),
            };
            Ok((adapter.name.clone(), peft(&place, args)?))
        });
        return Ok(Chosen {
            adapters: adapters.collect::<Result<_, Failure>>()?,
            model: sources::server_model(&server.spec.base_model, &args.registry, &tell)?.path,
            name: api::model_server::base_name(&server),
            precision: server.spec.precision.map_or(args.precision, PrecisionArg::from),
            int8: server.spec.weights == Some(Weights::Int8),
        });
    }
    let model = args.model.as_deref().unwrap_or_default();
    let adapters = args.adapter.iter().map(|given| {
        let (name, place) = given.split_once('=').unwrap_or((given, given));
        Ok((short(name), peft(place, args)?))
    });
    Ok(Chosen {
        adapters: adapters.collect::<Result<_, Failure>>()?,
        model: sources::named_model(model, &args.registry, &tell)?.path,
        name: short(model),
        precision: args.precision,
        int8: false,
    })
}

fn peft(place: &str, args: &ChatArgs) -> Result<PathBuf, Failure> {
    match sources::adapter(place, &args.registry, &|_, _, _| {})? {
        LocalAdapter::Peft { folder, .. } => Ok(folder),
        LocalAdapter::Full { folder } => {
            let told = format!("`{}` is a whole model and no adapter", folder.display());
            Err(Failure::configuration(told).with_hint("name it with --model"))
        }
    }
}

/// One model's side of the conversation.
struct Talk {
    name: String,
    revision: u64,
    messages: Vec<Message>,
}

impl Talk {
    fn new(name: String, revision: u64, args: &ChatArgs) -> Self {
        Self { name, revision, messages: beginning(args) }
    }
}

fn beginning(args: &ChatArgs) -> Vec<Message> {
    args.system.as_deref().map(|text| Message::new("system", text)).into_iter().collect()
}

fn converse(
    engine: &Engine,
    tokenizer: &Tokenizer,
    talks: &mut [Talk],
    args: &ChatArgs,
) -> Result<(), Failure> {
    let is_person = std::io::stdin().is_terminal() && args.output.output == Output::Text;
    let prompt = || {
        if is_person {
            say::print(&format_args!("> "));
        }
    };
    prompt();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| {
            Failure::new(ExitClass::Io, format!("cannot read the standard input: {error}"))
        })?;
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/new" => talks.iter_mut().for_each(|talk| talk.messages = beginning(args)),
            text => {
                let answers = ask(engine, tokenizer, talks, text, args)?;
                show(talks, text, &answers, args.output.output);
            }
        }
        prompt();
    }
    Ok(())
}

/// Sends a text to all of them at once.
fn ask(
    engine: &Engine,
    tokenizer: &Tokenizer,
    talks: &mut [Talk],
    text: &str,
    args: &ChatArgs,
) -> Result<Vec<String>, Failure> {
    let mut submissions = Vec::new();
    for talk in talks.iter_mut() {
        talk.messages.push(Message::new("user", text));
        submissions.push(submission(engine, tokenizer, talk, args)?);
    }
    let answers = engine
        .submit(submissions)
        .map_err(|_| Failure::configuration("more adapters than can be asked at once"))?;
    let mut texts = Vec::new();
    for (talk, answer) in talks.iter_mut().zip(answers) {
        let text = tokenizer.decode(&tokens(answer)?, true).map_err(|e| failure(&e, e.hint()))?;
        talk.messages.push(Message::new("assistant", text.as_str()));
        texts.push(text);
    }
    Ok(texts)
}

fn submission(
    engine: &Engine,
    tokenizer: &Tokenizer,
    talk: &Talk,
    args: &ChatArgs,
) -> Result<Submission, Failure> {
    let template = tokenizer.chat().expect("it was looked for at the start");
    let text = template.render(&talk.messages, true, None).map_err(|e| failure(&e, e.hint()))?;
    let prompt = tokenizer.encode(&text, false).map_err(|e| failure(&e, e.hint()))?;
    let context = engine.facts().context;
    if prompt.len() >= context {
        return Err(Failure::configuration(format!(
            "the conversation has {} tokens, and the model takes at most {context}",
            prompt.len()
        ))
        .with_hint("begin a new one with /new"));
    }
    let max_tokens = (args.max_new_tokens as usize).min(context - prompt.len());
    let sampling =
        Sampling { temperature: args.temperature, seed: args.seed, ..Sampling::default() };
    let (adapter, ends) = (talk.revision, tokenizer.eos().to_vec());
    Ok(Submission { prompt, adapter, sampling, max_tokens, ends, guide: None })
}

fn tokens(mut answer: Answer) -> Result<Vec<u32>, Failure> {
    let mut tokens = Vec::new();
    loop {
        match answer.events.blocking_recv() {
            Some(Event::Token(drawn)) => tokens.push(drawn.id),
            Some(Event::Done(_)) => return Ok(tokens),
            Some(Event::Failed(failed)) => return Err(internal(&failed)),
            None => return Err(Failure::new(ExitClass::Internal, "the engine has ended")),
        }
    }
}

fn show(talks: &[Talk], prompt: &str, answers: &[String], output: Output) {
    match output {
        Output::Text => {
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED);
            table.set_content_arrangement(ContentArrangement::Dynamic);
            if table.width().is_none() {
                table.set_width(WIDTH);
            }
            table.set_header(talks.iter().map(|talk| talk.name.as_str()));
            table.add_row(answers.iter().map(|answer| answer.trim()));
            say::say!("{table}");
        }
        Output::Json => {
            let pairs = talks.iter().zip(answers);
            let answers: Map<String, Value> =
                pairs.map(|(talk, answer)| (talk.name.clone(), json!(answer))).collect();
            say::json_line(&json!({"prompt": prompt, "answers": answers}));
        }
    }
}

fn internal(error: &dyn std::error::Error) -> Failure {
    Failure::of(ExitClass::Internal, error)
}

fn failure(error: &dyn std::error::Error, hint: Option<String>) -> Failure {
    Failure { hint, ..Failure::of(ExitClass::Configuration, error) }
}
