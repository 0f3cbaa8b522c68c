//! Sequences with a common beginning that is packed once: loss and gradients are those of whole sequences, on both
//! ways through the model, with full attention and with a sliding window.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::rc::Rc;

use lm::files::ModelFiles;
use lm::generate::{Flow, GenerateOptions, generate};
use lm::head::Targets;
use lm::lora::LoraConfig;
use lm::model::{LoadOptions, Model};
use lm::packed::Packed;
use lm::param::Param;
use lm::tape::{Mode, Tape, TapeOptions};
use tch::{Device, Kind, Tensor};

const BEGINNING: usize = 21;
/// Tokens of each sequence after the beginning; the last two are learned.
const OWN: [usize; 4] = [3, 9, 9, 60];

fn model(kind: Kind, changes: &[(&str, serde_json::Value)]) -> Model {
    let folder = tempfile::tempdir().unwrap();
    testkit::tiny_model::write(folder.path(), 3).unwrap();
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    std::fs::write(path, config.to_string()).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    let options = LoadOptions { kind, device: Device::Cpu, quantization: None };
    let mut model = Model::load(&files, options).unwrap();
    model.attach_lora(&LoraConfig::all_linear(4), 0).unwrap();
    tch::manual_seed(5);
    for param in model.trainable() {
        param.assign(&(Tensor::randn(param.value().size(), (Kind::Float, Device::Cpu)) * 0.2));
    }
    model
}

/// The pack, and what its rows have to predict. The rows of equal tokens are not the same ones in both.
fn pack(shared: bool) -> (Packed, Targets) {
    let (mut ids, mut lengths) = (Vec::new(), Vec::new());
    let (mut rows, mut targets) = (Vec::new(), Vec::<i64>::new());
    for (number, own) in OWN.into_iter().enumerate() {
        let beginning = if shared && number > 0 { 0 } else { BEGINNING };
        ids.extend((0..beginning).map(|at| (at * 7 % 200) as i64));
        ids.extend((0..own).map(|at| ((number * 31 + at * 3) % 200) as i64));
        lengths.push((beginning + own) as i64);
        let end = ids.len();
        rows.extend([end as i64 - 3, end as i64 - 2]);
        targets.extend(&ids[end - 2..]);
    }
    let device = Device::Cpu;
    let packed = if shared {
        Packed::sharing(&ids, &lengths, BEGINNING as i64, device)
    } else {
        Packed::new(&ids, &lengths, device)
    };
    let (rows, ids) = (Tensor::from_slice(&rows), Tensor::from_slice(&targets));
    (packed, Targets { rows, ids, weights: None, scale: 0.125 })
}

fn run(model: &Model, shared: bool, mode: Mode, checkpointing: bool) -> (f64, Vec<Tensor>) {
    let params: &[Rc<Param>] = model.trainable();
    for param in params {
        // What autograd has gathered is seen, and cleared, while it tracks.
        param.track(true);
        param.zero_grad();
        param.track(mode == Mode::Autograd);
    }
    let (packed, targets) = pack(shared);
    let tape = Tape::new(TapeOptions { mode, checkpointing, dropout: None });
    let pass = || {
        let hidden = model.hidden(&tape, &packed, None);
        let loss = model.loss(&tape, &hidden, &targets);
        loss.backward(&tape);
        loss.value()
    };
    let loss = if mode == Mode::Autograd { pass() } else { tch::no_grad(pass) };
    let grads = params.iter().map(|param| param.grad().unwrap().copy()).collect();
    for param in params {
        param.track(false);
    }
    (loss, grads)
}

fn check(name: &str, kind: Kind, changes: &[(&str, serde_json::Value)]) {
    let model = model(kind, changes);
    let (expected, reference) = run(&model, false, Mode::Autograd, false);
    let tolerance = if kind == Kind::Float { 5e-5 } else { 6e-2 };
    for (shared, mode, checkpointing) in [
        (false, Mode::Explicit, false),
        (true, Mode::Autograd, false),
        (true, Mode::Explicit, false),
        (true, Mode::Explicit, true),
    ] {
        let how = format!("{name} {kind:?}, shared: {shared}, {mode:?}, {checkpointing}");
        let (loss, grads) = run(&model, shared, mode, checkpointing);
        assert!((loss - expected).abs() <= tolerance * expected, "{how}: {loss}, not {expected}");
        for (param, (grad, reference)) in model.trainable().iter().zip(grads.iter().zip(&reference))
        {
            let difference = (grad - reference).norm() / reference.norm();
            let difference = f64::try_from(difference).unwrap();
            assert!(difference < tolerance, "{how}: `{}` differs by {difference:e}", param.name());
        }
    }
}

#[test]
fn a_shared_beginning_leaves_loss_and_gradients_as_they_are() {
    for kind in [Kind::Float, Kind::BFloat16] {
        check("full", kind, &[]);
    }
    // Smaller than the longest sequence, and than the beginning.
    let sliding =
        [("model_type", serde_json::json!("mistral")), ("sliding_window", serde_json::json!(12))];
    check("sliding", Kind::Float, &sliding);
}

/// Answers to prompts that begin alike are those to each prompt alone.
#[test]
fn prompts_that_begin_alike_are_answered_as_each_alone() {
    let model = model(Kind::Float, &[]);
    let prompt = |number: u32| -> Vec<u32> {
        let beginning = (0..30).map(|at| at * 7 % 200);
        beginning.chain((0..3 + 5 * number).map(|at| (number * 31 + at) % 200)).collect()
    };
    let prompts: Vec<Vec<u32>> = (0..4).map(prompt).collect();
    let options = GenerateOptions { max_new_tokens: 8, ..GenerateOptions::default() };
    let answer =
        |prompts: &[Vec<u32>]| generate(&model, prompts, &options, &mut |_, _| Flow::Continue);
    let together = answer(&prompts);
    for (prompt, expected) in prompts.iter().zip(&together) {
        assert_eq!(&answer(std::slice::from_ref(prompt))[0], expected);
    }
    assert!(together.iter().any(|one| one != &together[0]), "the answers differ: {together:?}");
}
