//! Measures the engine: `bench_serve MODEL fp32|bf16|int8 CONCURRENT ADAPTERS PROMPT ANSWER RANK`, one line of JSON.
//!
//! Every request has a prompt of its own; with adapters, request `i` names adapter `i mod ADAPTERS`, which
//! are random ones on all linear layers. A first round warms up and is not counted.
#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lm::adapters::Adapter;
use lm::files::ModelFiles;
use lm::sample::Sampling;
use serde_json::json;
use serve::engine::{Engine, EngineOptions, Event, Submission};
use serve::metrics::Metrics;
use tch::{Device, Kind, Tensor};

/// Rounds that are counted; the best one is told.
const ROUNDS: usize = 2;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What is asked of the engine at once.
struct Load {
    requests: usize,
    adapters: Vec<u64>,
    prompt: usize,
    answer: usize,
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision, numbers @ ..] = arguments.as_slice() else {
        return Err("MODEL fp32|bf16|int8 CONCURRENT ADAPTERS PROMPT ANSWER RANK".into());
    };
    let numbers: Vec<usize> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
    let [requests, adapters, prompt, answer, rank] = numbers.try_into().map_err(|_| "numbers")?;
    let kind = if precision == "bf16" { Kind::BFloat16 } else { Kind::Float };
    let device = Device::cuda_if_available();
    let (int8, adapter_bytes) = (precision == "int8", 8 << 30);
    let options = EngineOptions { kind, int8, device, adapter_bytes, ..EngineOptions::default() };
    let files = ModelFiles::open(Path::new(model))?;
    let engine = Engine::start(files, options, Arc::new(Metrics::new("bench")?))?;
    let folder = std::env::temp_dir().join(format!("anneal-bench-{}", std::process::id()));
    let adapters = (0..adapters)
        .map(|index| offer(&engine, &folder.join(index.to_string()), rank, index as i64))
        .collect::<Fallible<Vec<u64>>>()?;
    let _ = std::fs::remove_dir_all(&folder);
    let load = Load { requests, adapters, prompt, answer };
    round(&engine, &load, 0)?;
    let (mut seconds, mut first) = (f64::INFINITY, Vec::new());
    for number in 1..=ROUNDS {
        let start = Instant::now();
        let told = round(&engine, &load, number)?;
        let taken = start.elapsed().as_secs_f64();
        if taken < seconds {
            (seconds, first) = (taken, told);
        }
    }
    first.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "concurrent": requests,
            "adapters": load.adapters.len(),
            "tokensPerSecond": (requests * answer) as f64 / seconds,
            "firstTokenSeconds": first[first.len() / 2],
            "seconds": seconds,
        })
    );
    Ok(())
}

/// Answers all requests at once; seconds until the first token of each.
fn round(engine: &Engine, load: &Load, number: usize) -> Fallible<Vec<f64>> {
    let submission = |index: usize| {
        let seed = (number * load.requests + index) as u32;
        Submission {
            prompt: (0..load.prompt as u32)
                .map(|i| 1000 + (seed * 7919 + i * 104_729) % 40_000)
                .collect(),
            adapter: load.adapters.get(index % load.adapters.len().max(1)).copied().unwrap_or(0),
            sampling: Sampling::default(),
            max_tokens: load.answer,
            ends: Vec::new(),
            guide: None,
        }
    };
    let start = Instant::now();
    let answers = engine.submit((0..load.requests).map(submission).collect());
    let answers = answers.map_err(|_| "more requests than the engine takes")?;
    let threads: Vec<_> = answers
        .into_iter()
        .map(|mut answer| {
            std::thread::spawn(move || {
                let mut first = None;
                loop {
                    match answer.events.blocking_recv() {
                        Some(Event::Token(_)) => {
                            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
                        }
                        Some(Event::Done(_)) => return Ok(first.unwrap_or_default()),
                        Some(Event::Failed(failed)) => return Err(failed.to_string()),
                        None => return Err("the engine has ended".to_owned()),
                    }
                }
            })
        })
        .collect();
    threads.into_iter().map(|thread| Ok(thread.join().map_err(|_| "a thread failed")??)).collect()
}

/// A random adapter on all linear layers, by way of its files, as a server gets it.
fn offer(engine: &Engine, folder: &PathBuf, rank: usize, seed: i64) -> Fallible<u64> {
    std::fs::create_dir_all(folder)?;
    tch::manual_seed(seed);
    let rank = rank as i64;
    let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.01;
    let mut tensors = BTreeMap::new();
    for (name, (outputs, inputs)) in engine.requirements().shapes {
        if name == "lm_head" {
            continue;
        }
        let name = format!("base_model.model.{name}");
        tensors.insert(format!("{name}.lora_A.weight"), random([rank, *inputs]));
        tensors.insert(format!("{name}.lora_B.weight"), random([*outputs, rank]));
    }
    lm::peft::write_tensors(&folder.join(lm::peft::ADAPTER_WEIGHTS), &tensors)?;
    let config = json!({
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": "all-linear",
    });
    std::fs::write(folder.join(lm::peft::ADAPTER_CONFIG), config.to_string())?;
    let adapter = Adapter::open(folder, &engine.requirements())?;
    Ok(engine.offer(adapter, folder.clone()))
}
