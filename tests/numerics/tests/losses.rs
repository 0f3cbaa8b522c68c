//! The first losses of a run are those of PEFT and PyTorch, step by step.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::rc::Rc;

use api::run_spec::{Precision, Quantization, Schedule, Training};
use lm::model::Model;
use lm::param::Param;
use serde_json::Value;
use tests_numerics::run::{self, Path};
use tests_numerics::{CASES, Case, QUANTIZED, Reference, close_number};
use train::optim::{AdamW, Settings, global_norm};
use train::schedule::learning_rate;

#[test]
fn lora_runs_lose_what_peft_loses() {
    let variants = [
        ("llama3", "adapter_dropout"),
        ("llama3", "adapter_rslora"),
        ("llama3", "adapter_modules_to_save"),
        ("llama_bias", "adapter_bias_all"),
        ("llama_bias", "adapter_bias_lora_only"),
    ];
    for (name, adapter) in CASES.map(|case| (case, "adapter")).into_iter().chain(variants) {
        let case = Case::open(name).unwrap();
        let (folder, reference) = case.adapter(adapter).unwrap();
        let mut model = run::load(&case).unwrap();
        lm::peft::load(&mut model, &folder).unwrap();
        follow(&format!("{name} {adapter}"), &case, &model, &reference);
    }
}

#[test]
fn runs_on_rounded_matrices_lose_what_peft_and_bitsandbytes_lose() {
    for name in QUANTIZED {
        let case = Case::open(name).unwrap();
        let (folder, reference) = case.adapter("adapter").unwrap();
        let mut model = run::load(&case).unwrap();
        lm::peft::load(&mut model, &folder).unwrap();
        follow(name, &case, &model, &reference);
    }
}

#[test]
fn full_fine_tuning_loses_what_pytorch_loses() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let mut model = run::load(&case).unwrap();
        model.train_full();
        follow(name, &case, &model, &case.reference);
    }
}

/// Takes the reference's steps and compares loss and gradient norm at each.
fn follow(what: &str, case: &Case, model: &Model, reference: &Reference) {
    let training = training(&reference.report["training"]);
    let mut optimizer = AdamW::new(Settings {
        beta1: training.adam_beta1,
        beta2: training.adam_beta2,
        epsilon: training.adam_epsilon,
        weight_decay: training.weight_decay,
        max_grad_norm: training.max_grad_norm,
    });
    let (losses, norms) = (reference.numbers("losses"), reference.numbers("grad_norms"));
    assert_eq!(losses.len() as u64, training.steps);
    for (step, (loss, norm)) in losses.into_iter().zip(norms).enumerate() {
        let (batch, seed) = (case.batch(step), Some(step as u64));
        let ours = run::loss_and_gradients_dropped(model, Path::Explicit, &batch, seed);
        close_number(&format!("{what}: loss of step {step}"), ours, loss).unwrap();
        let params: Vec<&Param> = model.trainable().iter().map(Rc::as_ref).collect();
        let ours = global_norm(&params);
        close_number(&format!("{what}: gradient norm of step {step}"), ours, norm).unwrap();
        optimizer.step(&params, ours, learning_rate(&training, step as u64));
    }
}

/// The reference's settings in our words.
fn training(value: &Value) -> Training {
    let number = |field: &str| value[field].as_f64().unwrap();
    assert_eq!(value["schedule"], "linear");
    Training {
        steps: number("steps") as u64,
        epochs: 1.0,
        batch_size: 2,
        micro_batch_tokens: 64,
        learning_rate: number("learning_rate"),
        schedule: Schedule::Linear,
        warmup_steps: number("warmup_steps") as u64,
        weight_decay: number("weight_decay"),
        adam_beta1: number("adam_beta1"),
        adam_beta2: number("adam_beta2"),
        adam_epsilon: number("adam_epsilon"),
        max_grad_norm: number("max_grad_norm"),
        precision: Precision::Fp32,
        quantization: Quantization::None,
        activation_checkpointing: false,
        seed: 0,
    }
}
