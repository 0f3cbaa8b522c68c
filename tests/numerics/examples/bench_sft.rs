//! Anneal's side of the speed benchmark: the run that `tests/numerics/scripts/peer_sft.py` makes of the
//! same rows with transformers, PEFT and TRL, and the same JSON object on the last line.
//!
//! ```text
//! bench_sft --model FOLDER --rows FILE.jsonl --out FOLDER [--steps 4 --warm-steps 1 --batch-size 4
//!           --rank 16 --alpha 32 --learning-rate 2e-4 --precision fp32|bf16 --threads 2
//!           --max-length 512 --micro-batch-tokens 2048 --checkpointing true
//!           --quantization none|nf4|int8]
//! bench_sft --rows FILE.jsonl --write-order FILE.json
//! bench_sft --model FOLDER --rows FILE.jsonl --out FOLDER --write-start true
//! ```
//!
//! The second form writes the order in which rows are taken, for the peer's `--order`; the third the adapter
//! that training starts from, for its `--start`.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use api::RunSpec;
use api::run_spec::{
    Adapter, BaseModel, Checkpoints, Columns, Compute, Data, Device, Duplicates, Evaluation,
    Format, HeldOut, Lora, LoraBias, Method, Output, Overlong, Precision, Quantization,
    RUN_SPEC_VERSION, Schedule, Training,
};
use lm::files::ModelFiles;
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use train::event::Event;
use train::session::Session;

/// Decides the order of the rows.
const SEED: u64 = 0;

fn main() -> Result<()> {
    let arguments = arguments()?;
    let rows = PathBuf::from(text(&arguments, "rows", None)?);
    if let Some(path) = arguments.get("write-order") {
        let count = std::fs::read_to_string(&rows).context("cannot read the rows")?.lines().count();
        let order = serde_json::to_vec(&train::data::order(count, SEED, 0))?;
        return std::fs::write(path, order).context("cannot write the order");
    }
    let spec = spec(&arguments, &rows)?;
    if arguments.contains_key("write-start") {
        std::fs::create_dir_all(&spec.output.dir).context("cannot make the output folder")?;
        let files = ModelFiles::open(&spec.base_model.path)?;
        return Ok(Session::open(&spec, &files)?.save_weights(&spec.output.dir)?);
    }
    let warm = number(&arguments, "warm-steps", 1.0)? as usize;
    let mut watch = Watch::default();
    train::run(&spec, &AtomicBool::new(false), &mut |event| watch.see(event))?;
    let mut report = watch.report(warm, &arguments)?;
    // After the run, so that it is not part of the run's peak memory.
    report["gemm_peak_flops"] = json!(gemm_peak(spec.training.precision));
    report["flops_per_token"] = json!(flops_per_token(&spec)?);
    println!("{report}");
    Ok(())
}

/// What is noted of a run while it goes on.
#[derive(Default)]
struct Watch {
    start_to_first_step: f64,
    loaded_mb: f64,
    last: Option<Instant>,
    last_cpu: f64,
    losses: Vec<f64>,
    tokens: Vec<u64>,
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
}

impl Watch {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Started(_) => {
                self.start_to_first_step = process_age().unwrap_or(f64::NAN);
                self.loaded_mb = status_mb("VmRSS").unwrap_or(f64::NAN);
                self.last = Some(Instant::now());
                self.last_cpu = cpu_seconds().unwrap_or(f64::NAN);
            }
            Event::Step(step) => {
                let now = Instant::now();
                if let Some(last) = self.last.replace(now) {
                    self.seconds.push((now - last).as_secs_f64());
                }
                let cpu = cpu_seconds().unwrap_or(f64::NAN);
                self.cpu_seconds.push(cpu - self.last_cpu);
                self.last_cpu = cpu;
                self.losses.push(step.loss);
                self.tokens.push(step.tokens);
            }
            _ => {}
        }
    }

    fn report(&self, warm: usize, arguments: &HashMap<String, String>) -> Result<Value> {
        ensure!(self.tokens.len() > warm, "there are no steps after the first {warm}");
        let tokens: u64 = self.tokens[warm..].iter().sum();
        let seconds: f64 = self.seconds[warm..].iter().sum();
        let cpu_seconds: f64 = self.cpu_seconds[warm..].iter().sum();
        let peak = status_mb("VmHWM")?;
        Ok(json!({
            "losses": self.losses,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "tokens_per_second": tokens as f64 / seconds,
            "tokens_per_cpu_second": tokens as f64 / cpu_seconds,
            "peak_rss_mb": peak,
            "memory_over_weights_mb": peak - self.loaded_mb,
            "start_to_first_step_s": self.start_to_first_step,
            "settings": arguments,
        }))
    }
}

fn arguments() -> Result<HashMap<String, String>> {
    let mut arguments = HashMap::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else { bail!("`{word}` is no option") };
        let value = words.next().with_context(|| format!("--{name} needs a value"))?;
        arguments.insert(name.to_owned(), value);
    }
    Ok(arguments)
}

fn text(given: &HashMap<String, String>, name: &str, default: Option<&str>) -> Result<String> {
    let value = given.get(name).map(String::as_str).or(default);
    value.map(str::to_owned).with_context(|| format!("--{name} is needed"))
}

fn number(given: &HashMap<String, String>, name: &str, default: f64) -> Result<f64> {
    match given.get(name) {
        None => Ok(default),
        Some(value) => value.parse().with_context(|| format!("--{name} {value} is no number")),
    }
}

/// The run as `plan` would write it, without validation and checkpoints.
fn spec(given: &HashMap<String, String>, rows: &Path) -> Result<RunSpec> {
    let out = PathBuf::from(text(given, "out", None)?);
    // A finished run would only be replayed.
    if out.exists() {
        std::fs::remove_dir_all(&out).context("cannot empty the output folder")?;
    }
    Ok(RunSpec {
        version: RUN_SPEC_VERSION.to_owned(),
        name: "bench".to_owned(),
        revision: "0".repeat(12),
        base_model: BaseModel {
            path: text(given, "model", None)?.into(),
            reference: "bench".to_owned(),
            digest: None,
        },
        data: data(given, rows)?,
        method: Method::Sft,
        adapter: Adapter::Lora(Lora {
            rank: number(given, "rank", 16.0)? as usize,
            alpha: number(given, "alpha", 32.0)?,
            dropout: 0.0,
            target_modules: vec!["all-linear".to_owned()],
            exclude_modules: Vec::new(),
            rslora: false,
            bias: LoraBias::None,
            modules_to_save: Vec::new(),
        }),
        training: training(given)?,
        evaluation: Evaluation {
            every_steps: 0,
            metrics: Vec::new(),
            max_new_tokens: 1,
            max_examples: 1,
            early_stopping: None,
        },
        checkpoints: Checkpoints { every_steps: 0, every_seconds: 0, keep: 1 },
        compute: Compute {
            device: Device::Cpu,
            threads: Some(number(given, "threads", 2.0)? as usize),
        },
        output: Output { dir: out },
    })
}

fn data(given: &HashMap<String, String>, rows: &Path) -> Result<Data> {
    Ok(Data {
        train: vec![rows.to_owned()],
        validation: HeldOut::None,
        test: HeldOut::None,
        format: Format::Text,
        columns: Columns::default(),
        template: None,
        system: None,
        labels: Vec::new(),
        max_sequence_length: number(given, "max-length", 512.0)? as usize,
        overlong: Overlong::Fault,
        duplicates: Duplicates::Keep,
    })
}

fn training(given: &HashMap<String, String>) -> Result<Training> {
    let batch = number(given, "batch-size", 4.0)?;
    let tokens = batch * number(given, "max-length", 512.0)?;
    let precision = match text(given, "precision", Some("fp32"))?.as_str() {
        "fp32" => Precision::Fp32,
        "bf16" => Precision::Bf16,
        other => bail!("--precision {other} is neither fp32 nor bf16"),
    };
    let quantization = match text(given, "quantization", Some("none"))?.as_str() {
        "none" => Quantization::None,
        "nf4" => Quantization::Nf4,
        "int8" => Quantization::Int8,
        other => bail!("--quantization {other} is none of none, nf4 and int8"),
    };
    Ok(Training {
        steps: number(given, "steps", 4.0)? as u64,
        epochs: 1.0,
        batch_size: batch as usize,
        micro_batch_tokens: number(given, "micro-batch-tokens", tokens)? as usize,
        learning_rate: number(given, "learning-rate", 2e-4)?,
        schedule: Schedule::Constant,
        warmup_steps: 0,
        weight_decay: 0.0,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        max_grad_norm: 1.0,
        precision,
        quantization,
        activation_checkpointing: given.get("checkpointing").is_some_and(|on| on == "true"),
        seed: SEED,
    })
}

/// Seconds since the kernel started this process.
fn process_age() -> Result<f64> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split_whitespace().next().context("no uptime")?.parse()?;
    Ok(uptime - process_stat(22)?)
}

/// Processor time of this process, over all its threads.
fn cpu_seconds() -> Result<f64> {
    Ok(process_stat(14)? + process_stat(15)?)
}

/// A time in `/proc/self/stat`, by its number in proc(5), in seconds.
fn process_stat(field: usize) -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in brackets, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has another form")?;
    let ticks = fields.split_whitespace().nth(field - 3).context("/proc/self/stat is too short")?;
    // Linux counts these ticks at 100 Hz whatever its own clock.
    Ok(ticks.parse::<f64>()? / 100.0)
}

/// A memory field of `/proc/self/status`, MB of 1,000,000 bytes.
fn status_mb(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// Operations a second of LibTorch's best product of two square matrices.
fn gemm_peak(precision: Precision) -> f64 {
    const SIZE: i64 = 2048;
    let kind = match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let matrix = || Tensor::rand([SIZE, SIZE], (Kind::Float, tch::Device::Cpu)).to_kind(kind);
    let (a, b) = (matrix(), matrix());
    let seconds = (0..12).map(|_| {
        let start = Instant::now();
        let _ = a.matmul(&b);
        start.elapsed().as_secs_f64()
    });
    2.0 * (SIZE as f64).powi(3) / seconds.fold(f64::INFINITY, f64::min)
}

/// Operations that a token of a row of full length takes: two for each weight forward and two back, six for
/// those of the adapter, and attention over half of the row, which costs twice as much back.
fn flops_per_token(spec: &RunSpec) -> Result<f64> {
    let model = train::model_facts(&ModelFiles::open(&spec.base_model.path)?)?;
    let linears: u64 = model.linears.iter().map(|one| one.outputs * one.inputs).sum();
    let head = if model.tied_embeddings { model.vocabulary * model.hidden_size } else { 0 };
    let rank = match &spec.adapter {
        Adapter::Lora(lora) => lora.rank as u64,
        Adapter::Full => 0,
    };
    let inner = model.linears.iter().filter(|one| !one.name.ends_with("lm_head"));
    let adapter: u64 = inner.map(|one| (one.outputs + one.inputs) * rank).sum();
    let width = model.attention_heads * model.head_dim * model.layers;
    let attention = 6 * spec.data.max_sequence_length as u64 * width;
    Ok((4 * (linears + head) + 6 * adapter + attention) as f64)
}
