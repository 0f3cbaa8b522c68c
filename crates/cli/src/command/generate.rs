//! `anneal generate`: one prompt, one answer.

mod answer;

use std::io::Read as _;

use lm::chat::Message;
use lm::files::ModelFiles;
use lm::generate::{Flow, GenerateOptions};
use lm::layers::Quantization;
use lm::model::{LoadOptions, Model};
use lm::tokenizer::Tokenizer;
use serde_json::json;
use tch::{Device, Kind};
use train::ExitClass;

use self::answer::Answer;
use crate::args::{GenerateArgs, Output, PrecisionArg, QuantizationArg};
use crate::failure::Failure;
use crate::say;
use crate::sources::{self, LocalAdapter};

/// Answers the prompt.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let prompt = prompt(args)?;
    let chosen = Chosen::fetch(args)?;
    let files = ModelFiles::open(&chosen.model).map_err(|e| failure(&e, e.hint()))?;
    let tokenizer = Tokenizer::open(&files).map_err(|e| failure(&e, e.hint()))?;
    let ids = encode(&tokenizer, &prompt, args)?;
    let model = load(&files, chosen.adapter.as_deref(), args)?;
    let context = model.config().max_position_embeddings as usize;
    if ids.len() >= context {
        return Err(Failure::configuration(format!(
            "the prompt has {} tokens, and the model takes at most {context}",
            ids.len()
        ))
        .with_hint("shorten the prompt"));
    }
    answer(&model, &tokenizer, &ids, args)
}

fn prompt(args: &GenerateArgs) -> Result<String, Failure> {
    if let Some(prompt) = args.prompt.as_deref().filter(|prompt| *prompt != "-") {
        return Ok(prompt.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::new(
            ExitClass::Io,
            format!("cannot read the prompt from the standard input: {error}"),
        )
    })?;
    let text = text.trim_end_matches('\n').to_owned();
    if text.is_empty() {
        return Err(Failure::configuration("there is no prompt")
            .with_hint("write one with --prompt TEXT, or send it to the standard input"));
    }
    Ok(text)
}

/// What answers: paths on this machine.
struct Chosen {
    model: std::path::PathBuf,
    adapter: Option<std::path::PathBuf>,
}

impl Chosen {
    fn fetch(args: &GenerateArgs) -> Result<Self, Failure> {
        let tell = |_: &str, _: u64, _: u64| {};
        let found = args.adapter.as_deref();
        let found = found.map(|name| sources::adapter(name, &args.registry, &tell)).transpose()?;
        let named = |name: &str| sources::named_model(name, &args.registry, &tell);
        match (found, args.model.as_deref()) {
            (Some(LocalAdapter::Full { folder }), _) => Ok(Self { model: folder, adapter: None }),
            (Some(LocalAdapter::Peft { folder, .. }), Some(model)) => {
                Ok(Self { model: named(model)?.path, adapter: Some(folder) })
            }
            (Some(LocalAdapter::Peft { folder, base_model: Some(model) }), None) => {
                let missing =
                    |failure: Failure| failure.with_hint("name the base model with --model");
                let model = named(&model).map_err(missing)?;
                Ok(Self { model: model.path, adapter: Some(folder) })
            }
            (Some(LocalAdapter::Peft { base_model: None, .. }) | None, None) => {
                Err(Failure::configuration("the adapter does not say what it was trained on")
                    .with_hint("name the base model with --model"))
            }
            (None, Some(model)) => Ok(Self { model: named(model)?.path, adapter: None }),
        }
    }
}

fn encode(tokenizer: &Tokenizer, prompt: &str, args: &GenerateArgs) -> Result<Vec<u32>, Failure> {
    let encoded = |text: &str, add_special| {
        tokenizer.encode(text, add_special).map_err(|error| failure(&error, error.hint()))
    };
    let template = match tokenizer.chat() {
        Some(template) if !args.raw => template,
        None if args.system.is_some() => {
            return Err(Failure::configuration("the base model has no chat template")
                .with_hint("leave out --system"));
        }
        Some(_) | None => return encoded(prompt, true),
    };
    let system = args.system.as_deref().map(|text| Message::new("system", text));
    let messages: Vec<Message> = system.into_iter().chain([Message::new("user", prompt)]).collect();
    let text = template.render(&messages, true, None).map_err(|e| failure(&e, e.hint()))?;
    encoded(&text, false)
}

fn load(
    files: &ModelFiles,
    adapter: Option<&std::path::Path>,
    args: &GenerateArgs,
) -> Result<Model, Failure> {
    let kind = match args.precision {
        PrecisionArg::Fp32 => Kind::Float,
        PrecisionArg::Bf16 => Kind::BFloat16,
    };
    let quantization = args.quantization.map(|format| match format {
        QuantizationArg::Nf4 => Quantization::Nf4,
        QuantizationArg::Int8 => Quantization::Int8,
    });
    let options = LoadOptions { kind, device: Device::cuda_if_available(), quantization };
    let mut model = Model::load(files, options).map_err(|error| failure(&error, None))?;
    if let Some(folder) = adapter {
        lm::peft::load(&mut model, folder).map_err(|error| failure(&error, None))?;
    }
    Ok(model)
}

fn answer(
    model: &Model,
    tokenizer: &Tokenizer,
    ids: &[u32],
    args: &GenerateArgs,
) -> Result<(), Failure> {
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens as usize,
        temperature: args.temperature,
        top_p: args.top_p,
        seed: args.seed,
        stop: tokenizer.eos().to_vec(),
        batch: 1,
    };
    let stream = args.output.output == Output::Text && !args.no_stream;
    let mut decoder = tokenizer.decode_stream(true);
    let mut answer = Answer::new(&args.stop);
    let mut trouble = None;
    let drawn = lm::generate::generate(model, &[ids.to_vec()], &options, &mut |_, id| {
        let text = match decoder.step(id) {
            Ok(text) => text,
            Err(error) => {
                trouble = Some(failure(&error, error.hint()));
                return Flow::Stop;
            }
        };
        let new = answer.push(&text);
        if stream {
            say::print(&format_args!("{new}"));
        }
        if answer.is_complete() { Flow::Stop } else { Flow::Continue }
    });
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    let rest = decoder.finish().map_err(|error| failure(&error, error.hint()))?;
    let tail = answer.finish(&rest);
    let count = drawn.first().map_or(0, Vec::len);
    match args.output.output {
        Output::Text if stream => say::say!("{tail}"),
        Output::Text => say::say!("{}", answer.text()),
        Output::Json => say::json(&json!({
            "text": answer.text(),
            "promptTokens": ids.len(),
            "tokens": count,
            "finishReason": answer.finish_reason(count, options.max_new_tokens),
        })),
    }
    Ok(())
}

fn failure(error: &dyn std::error::Error, hint: Option<String>) -> Failure {
    let failure = Failure::of(ExitClass::Configuration, error);
    Failure { hint, ..failure }
}
