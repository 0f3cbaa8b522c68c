//! Each architecture gives transformers' logits, loss and gradients, by every way through the engine.
#![expect(clippy::unwrap_used, reason = "tests")]

use anyhow::Context;
use tests_numerics::run::{self, Path};
use tests_numerics::{CASES, Case, close, close_number};

#[test]
fn logits_of_packed_sequences_are_those_of_each_alone() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let model = run::load(&case).unwrap();
        close(name, &run::logits(&model, &case.batch(0)), case.reference.logits()).unwrap();
    }
}

#[test]
fn full_fine_tuning_has_the_gradients_of_autograd_in_pytorch() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let mut model = run::load(&case).unwrap();
        model.train_full();
        for path in Path::ALL {
            let what = format!("{name} {path:?}");
            let loss = run::loss_and_gradients(&model, path, &case.batch(0));
            close_number(&format!("{what} loss"), loss, case.reference.loss()).unwrap();
            for (weight, gradient) in case.reference.gradients() {
                let ours = run::gradient(&model, weight).context(what.clone()).unwrap();
                close(&format!("{what} {weight}"), &ours, gradient).unwrap();
            }
            let norms = case.reference.report["grad_norms_of_weights"].as_object().unwrap();
            assert_eq!(norms.len(), model.trainable().len(), "{what}: every weight is trained");
            for (weight, norm) in norms {
                let ours = run::gradient(&model, weight).context(what.clone()).unwrap();
                let ours = ours.norm().double_value(&[]);
                close_number(&format!("{what} norm of {weight}"), ours, norm.as_f64().unwrap())
                    .unwrap();
            }
        }
    }
}

#[test]
fn adapters_made_by_peft_give_its_logits_loss_and_gradients() {
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
        close(
            &format!("{name} {adapter}"),
            &run::logits(&model, &case.batch(0)),
            reference.logits(),
        )
        .unwrap();
        for path in Path::ALL {
            let what = format!("{name} {adapter} {path:?}");
            let loss = run::loss_and_gradients_dropped(&model, path, &case.batch(0), Some(0));
            close_number(&format!("{what} loss"), loss, reference.loss()).unwrap();
            let mut count = 0;
            for (matrix, gradient) in reference.gradients() {
                let ours = run::gradient(&model, matrix).context(what.clone()).unwrap();
                close(&format!("{what} {matrix}"), &ours, gradient).unwrap();
                count += 1;
            }
            assert_eq!(count, model.trainable().len(), "{what}: nothing else is trained");
        }
    }
}
