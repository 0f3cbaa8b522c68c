//! SmolLM2 with two adapters in one mixed batch answers as each prompt does alone, and as transformers and
//! PEFT do.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lm::adapters::Adapter;
use lm::files::ModelFiles;
use lm::sample::Sampling;
use lm::tokenizer::Tokenizer;
use serde_json::{Value, json};
use serve::engine::{Answer, Engine, EngineOptions, Event, Submission};
use serve::metrics::Metrics;
use tch::{Device, Kind, Tensor};

const TOKENS: usize = 20;
/// Where two tokens are nearer to each other than this, the order of fp32 additions may choose.
const TIE: f64 = 1e-2;

const PROMPTS: [&str; 3] = [
    "Why is the sky blue?",
    "Write a list of five fruits, and then say which one of them is the sweetest.",
    "The capital of France is",
];

#[test]
fn a_mixed_batch_answers_as_each_alone_and_as_peft() {
    let python =
        testkit::python::environment("venv-peer", &here("../numerics/scripts/requirements.txt"))
            .unwrap();
    let model = converted(&python);
    let folder = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(&model).unwrap();
    let tokenizer = Tokenizer::open(&files).unwrap();
    let options = EngineOptions { cache_bytes: 64 << 20, ..EngineOptions::default() };
    let engine = Engine::start(files, options, Arc::new(Metrics::new("smollm2").unwrap())).unwrap();
    let adapters: BTreeMap<&str, PathBuf> = [("all", 8, 3, "all"), ("attention", 16, 4, "attn")]
        .map(|(name, rank, seed, part)| {
            let place = folder.path().join(name);
            write_adapter(&engine, &place, rank, seed, part);
            (name, place)
        })
        .into();
    let revisions: BTreeMap<&str, u64> = adapters
        .iter()
        .map(|(name, place)| {
            let adapter = Adapter::open(place, &engine.requirements()).unwrap();
            (*name, engine.offer(adapter, place.clone()))
        })
        .collect();
    let jobs: Vec<(Option<&str>, Vec<u32>)> = PROMPTS
        .iter()
        .flat_map(|prompt| {
            let ids = tokenizer.encode(prompt, false).unwrap();
            [None, Some("all"), Some("attention")].map(|adapter| (adapter, ids.clone()))
        })
        .collect();
    let submission = |(adapter, prompt): &(Option<&str>, Vec<u32>)| Submission {
        prompt: prompt.clone(),
        adapter: adapter.map_or(0, |name| revisions[name]),
        sampling: Sampling::default(),
        max_tokens: TOKENS,
        ends: Vec::new(),
        guide: None,
    };
    let mixed = engine.submit(jobs.iter().map(submission).collect()).unwrap();
    let mixed: Vec<Vec<u32>> = mixed.into_iter().map(tokens).collect();
    assert!(mixed[0] != mixed[1] && mixed[0] != mixed[2], "the adapters change the answers");

    let list = json!({
        "model": model, "adapters": adapters, "tokens": TOKENS, "out": folder.path().join("out.json"),
        "prompts": jobs.iter().map(|(a, ids)| json!({"adapter": a, "ids": ids})).collect::<Vec<_>>(),
    });
    let path = folder.path().join("jobs.json");
    std::fs::write(&path, list.to_string()).unwrap();
    let mut script = testkit::python::script(&python, &here("scripts/peft_greedy.py"));
    testkit::python::succeed(script.arg(&path)).unwrap();
    let theirs: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.path().join("out.json")).unwrap()).unwrap();
    let mut compared = 0;
    for ((job, ours), theirs) in jobs.iter().zip(&mixed).zip(&theirs) {
        let alone = engine.submit(vec![submission(job)]).unwrap().remove(0);
        compared += same("alone", ours, &tokens(alone), &theirs["margins"]);
        let tokens: Vec<u32> = serde_json::from_value(theirs["tokens"].clone()).unwrap();
        compared += same(job.0.unwrap_or("base"), ours, &tokens, &theirs["margins"]);
    }
    let all = 2 * jobs.len() * TOKENS;
    assert!(compared * 10 > all * 8, "{compared} of {all} tokens are clear");
}

/// Holds two answers against each other until the first tie; how many tokens that were.
fn same(what: &str, ours: &[u32], theirs: &[u32], margins: &Value) -> usize {
    let margins: Vec<f64> = serde_json::from_value(margins.clone()).unwrap();
    let clear = margins.iter().position(|margin| *margin < TIE).unwrap_or(margins.len());
    assert_eq!(ours[..clear], theirs[..clear], "{what}");
    clear
}

fn tokens(mut answer: Answer) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some(Event::Token(drawn)) = answer.events.blocking_recv() {
        all.push(drawn.id);
    }
    all
}

/// A random adapter that changes answers, but leaves the model able to speak.
fn write_adapter(engine: &Engine, folder: &Path, rank: i64, seed: i64, part: &str) {
    std::fs::create_dir_all(folder).unwrap();
    tch::manual_seed(seed);
    let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.02;
    let chosen = engine.requirements().shapes.iter();
    let chosen =
        chosen.filter(|(name, _)| *name != "lm_head" && (part == "all" || name.contains(part)));
    let (mut tensors, mut targets) = (BTreeMap::new(), std::collections::BTreeSet::new());
    for (name, (outputs, inputs)) in chosen {
        targets.insert(name.rsplit('.').next().unwrap().to_owned());
        let name = format!("base_model.model.{name}");
        tensors.insert(format!("{name}.lora_A.weight"), random([rank, *inputs]));
        tensors.insert(format!("{name}.lora_B.weight"), random([*outputs, rank]));
    }
    lm::peft::write_tensors(&folder.join(lm::peft::ADAPTER_WEIGHTS), &tensors).unwrap();
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
        "target_modules": targets, "base_model_name_or_path": "smollm2",
    });
    std::fs::write(folder.join(lm::peft::ADAPTER_CONFIG), config.to_string()).unwrap();
}

/// SmolLM2 as a Hugging Face folder, made once and kept.
fn converted(python: &Path) -> PathBuf {
    let models = testkit::python::cache_dir().unwrap().join("models");
    let folder = models.join("smollm2-hf");
    if !folder.join("model.safetensors").is_file() {
        let gguf = testkit::smollm2().unwrap();
        let new = tempfile::tempdir_in(&models).unwrap();
        let mut script = Command::new(python);
        script.arg(here("../numerics/scripts/convert_gguf.py")).arg(gguf).arg(new.path());
        testkit::python::succeed(&mut script).unwrap();
        // Another process may have been faster.
        let _ = std::fs::rename(new.keep(), &folder);
    }
    folder
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
