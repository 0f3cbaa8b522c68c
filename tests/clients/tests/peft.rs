//! PEFT loads what Anneal writes, and Anneal loads what PEFT writes, with the same logits.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use lm::lora::{LoraBias, LoraConfig};
use lm::model::Model;
use lm::param::Param;
use serde_json::json;
use tch::Tensor;
use tests_numerics::run::{self, Path as Way};
use tests_numerics::{CASES, Case};
use train::optim::{AdamW, Settings, global_norm};

/// Largest difference of two logits that is put down to the order of fp32 additions.
const TOLERANCE: f64 = 1e-4;

#[test]
fn peft_gives_our_logits_with_the_adapters_that_we_write() {
    let python = python();
    let folder = tempfile::tempdir().unwrap();
    let mut jobs = Vec::new();
    let mut ours = Vec::new();
    for (name, kind, config) in adapters() {
        let case = Case::open(name).unwrap();
        let mut model = run::load(&case).unwrap();
        model.attach_lora(&config, 7).unwrap();
        take_steps(&model, &case);
        let what = format!("{name}-{kind}");
        let adapter = folder.path().join(&what);
        std::fs::create_dir(&adapter).unwrap();
        lm::peft::save(&model, &config, name, &adapter).unwrap();
        ours.push((what, run::logits(&model, &case.batch(0))));
        jobs.push(json!({
            "model": case.folder,
            "adapter": adapter,
            "sequences": case.batch(0).map(|sequence| &sequence.ids),
            "out": adapter.join("logits.safetensors"),
        }));
    }
    let list = folder.path().join("jobs.json");
    std::fs::write(&list, serde_json::to_vec(&jobs).unwrap()).unwrap();
    testkit::python::succeed(
        testkit::python::script(&python, &here("scripts/peft_logits.py")).arg(&list),
    )
    .unwrap();
    for (what, ours) in ours {
        let out = folder.path().join(&what).join("logits.safetensors");
        let theirs = Tensor::read_safetensors(out).unwrap().remove(0).1;
        same_logits(&what, &ours, &theirs);
    }
}

#[test]
fn we_give_the_logits_of_peft_with_the_adapters_that_it_writes() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let (adapter, reference) = case.adapter("adapter").unwrap();
        let mut model = run::load(&case).unwrap();
        lm::peft::load(&mut model, &adapter).unwrap();
        same_logits(name, &run::logits(&model, &case.batch(0)), reference.logits());
    }
}

/// What we write: every architecture with the default adapter, and Llama with each special kind.
fn adapters() -> Vec<(&'static str, &'static str, LoraConfig)> {
    let config = |targets: &[&str]| LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.0,
        target_modules: targets.iter().map(ToString::to_string).collect(),
        exclude_modules: Vec::new(),
        rslora: false,
        bias: LoraBias::None,
        modules_to_save: Vec::new(),
    };
    let mut all: Vec<_> =
        CASES.iter().map(|case| (*case, "default", config(&["all-linear"]))).collect();
    let saved = vec!["embed_tokens".to_owned(), "lm_head".to_owned()];
    all.push(("llama3", "rslora", LoraConfig { rslora: true, ..config(&["all-linear"]) }));
    all.push(("llama3", "saved", LoraConfig { modules_to_save: saved, ..config(&["q_proj"]) }));
    let excluded = vec!["k_proj".to_owned(), "down_proj".to_owned()];
    all.push((
        "llama3",
        "excluded",
        LoraConfig { exclude_modules: excluded, ..config(&["all-linear"]) },
    ));
    all.push(("llama3", "pattern", config(&[r".*\.1\.mlp\.(up|gate)_proj"])));
    all.push(("llama_bias", "bias-all", LoraConfig { bias: LoraBias::All, ..config(&["q_proj"]) }));
    all.push((
        "llama_bias",
        "bias-own",
        LoraConfig { bias: LoraBias::LoraOnly, ..config(&["q_proj"]) },
    ));
    all
}

/// Moves the adapter away from where it began, so that B is not zero.
fn take_steps(model: &Model, case: &Case) {
    let settings =
        Settings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 0.0 };
    let mut optimizer = AdamW::new(settings);
    for step in 0..3 {
        run::loss_and_gradients(model, Way::Explicit, &case.batch(step));
        let params: Vec<&Param> = model.trainable().iter().map(Rc::as_ref).collect();
        optimizer.step(&params, global_norm(&params), 0.05);
    }
}

fn same_logits(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let difference = (ours - theirs).abs().max().double_value(&[]);
    assert!(difference < TOLERANCE, "{what}: logits differ by {difference}");
}

fn python() -> PathBuf {
    let requirements = here("../numerics/scripts/requirements.txt");
    testkit::python::environment("venv-peer", &requirements).unwrap()
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
