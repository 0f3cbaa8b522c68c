//! Matrices in 4 and 8 bits: bitsandbytes' checkpoints have its values and its logits here, and what we round
//! has its bytes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use lm::files::ModelFiles;
use lm::layers::{Quantization, Weight};
use lm::model::{LoadOptions, Model};
use lm::weights::{Weights, bitsandbytes};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tests_numerics::run::{self, Path};
use tests_numerics::{Case, QUANTIZED, UNQUANTIZED, close, close_number, fixtures};

#[test]
fn matrices_have_the_bits_that_bitsandbytes_gives_them() {
    for name in QUANTIZED {
        let case = Case::open(name).unwrap();
        let weights = weights(name);
        let mut count = 0;
        for (tensor, dense) in &case.reference.tensors {
            let Some(layer) = tensor.strip_prefix("dense.") else { continue };
            let layer = format!("{layer}.weight");
            let rounded = weights.rounded(&layer, Device::Cpu).unwrap().unwrap();
            assert_eq!(bits(&rounded.value(Kind::Float)), bits(dense), "{name} {layer}");
            let low = dense.to_kind(Kind::BFloat16);
            assert_eq!(bits(&rounded.value(Kind::BFloat16)), bits(&low), "{name} {layer} in bf16");
            if let Weight::Nf4(matrix) = &rounded {
                assert_eq!(bits(&matrix.composed()), bits(dense), "{name} {layer} by operators");
            }
            count += 1;
        }
        assert_eq!(count, 7, "{name}: the layers of a block");
    }
}

#[test]
fn what_we_round_is_what_bitsandbytes_rounds() {
    let whole = weights(UNQUANTIZED);
    for (name, format) in [("nf4", Quantization::Nf4), ("int8", Quantization::Int8)] {
        let file = fixtures().join("models").join(name).join("model.safetensors");
        let theirs: HashMap<String, Tensor> =
            Tensor::read_safetensors(&file).unwrap().into_iter().collect();
        let mut count = 0;
        for layer in theirs.keys().filter_map(|name| name.strip_suffix("_proj.weight")) {
            let layer = format!("{layer}_proj");
            let tensor =
                whole.tensor(&format!("{layer}.weight"), Kind::Float, Device::Cpu).unwrap();
            let mut weight = Weight::Frozen(tensor);
            weight.quantize(format);
            for (part, ours) in bitsandbytes::saved(&layer, &weight) {
                let theirs = &theirs[&part];
                assert!(same_part(format, &part, &ours, theirs), "{part} is another one");
                count += 1;
            }
        }
        let parts = if format == Quantization::Nf4 { 6 } else { 3 };
        assert_eq!(count, 14 * parts, "{name}: parts of all layers");
    }
}

/// In 4 bits every byte is the same. In 8 bits bitsandbytes rounds to 16 bits first, which we do not: then an
/// element may be the next one.
fn same_part(format: Quantization, part: &str, ours: &Tensor, theirs: &Tensor) -> bool {
    if part.contains("quant_state") {
        let state = |x: &Tensor| serde_json::from_slice::<Value>(&bits(x)).unwrap();
        return state(ours) == state(theirs);
    }
    if ours.size() != theirs.size() || ours.kind() != theirs.kind() {
        return false;
    }
    if format == Quantization::Nf4 {
        return bits(ours) == bits(theirs);
    }
    let [ours, theirs] = [ours, theirs].map(|x| x.to_kind(Kind::Float));
    let difference = (&ours - &theirs).abs();
    let largest = difference.max().double_value(&[]);
    let (share, steps) = if part.contains("SCB") { (1.0, 1e-3) } else { (0.05, 1.0) };
    let changed = difference.gt(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    largest <= steps * theirs.abs().max().double_value(&[]).min(1.0) && changed <= share
}

#[test]
fn rounded_models_have_the_logits_and_gradients_of_bitsandbytes() {
    for name in QUANTIZED {
        let case = Case::open(name).unwrap();
        let mut model = run::load(&case).unwrap();
        close(name, &run::logits(&model, &case.batch(0)), case.reference.logits()).unwrap();
        let (folder, reference) = case.adapter("adapter").unwrap();
        lm::peft::load(&mut model, &folder).unwrap();
        let logits = run::logits(&model, &case.batch(0));
        close(&format!("{name} with an adapter"), &logits, reference.logits()).unwrap();
        for path in Path::ALL {
            let what = format!("{name} {path:?}");
            let loss = run::loss_and_gradients(&model, path, &case.batch(0));
            close_number(&format!("{what} loss"), loss, reference.loss()).unwrap();
            for (matrix, gradient) in reference.gradients() {
                let ours = run::gradient(&model, matrix).unwrap();
                close(&format!("{what} {matrix}"), &ours, gradient).unwrap();
            }
        }
    }
}

#[test]
fn a_model_that_is_rounded_while_it_loads_is_the_one_that_was_saved_so() {
    let case = Case::open("nf4").unwrap();
    let folder = fixtures().join("models").join(UNQUANTIZED);
    let quantization = Some(Quantization::Nf4);
    let options = LoadOptions { kind: Kind::Float, device: Device::Cpu, quantization };
    let model = Model::load(&ModelFiles::open(&folder).unwrap(), options).unwrap();
    close("nf4", &run::logits(&model, &case.batch(0)), case.reference.logits()).unwrap();
}

fn weights(name: &str) -> Weights {
    let folder = fixtures().join("models").join(name);
    Weights::open(&ModelFiles::open(&folder).unwrap()).unwrap()
}

/// The bytes of a tensor.
fn bits(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}
