//! `AdamW` and clipping against PyTorch's.

use lm::param::Param;
use serde_json::Value;
use tch::Tensor;

use super::{fixture, floats};
use crate::optim::{AdamW, Settings, global_norm};

fn params(case: &Value, shapes: &Value) -> Vec<Param> {
    let names = shapes.as_object().unwrap();
    let param = |(name, shape): (&String, &Value)| {
        let shape: Vec<i64> = serde_json::from_value(shape.clone()).unwrap();
        let value = Tensor::from_slice(&floats(&case["initial"][name])).reshape(&shape);
        Param::new(name.as_str(), &value)
    };
    names.iter().map(param).collect()
}

fn settings(case: &Value) -> Settings {
    let number = |name: &str| case[name].as_f64().unwrap();
    Settings {
        beta1: number("beta1"),
        beta2: number("beta2"),
        epsilon: number("epsilon"),
        weight_decay: number("weightDecay"),
        max_grad_norm: number("maxNorm"),
    }
}

fn set_grads(params: &[Param], grads: &Value) {
    for param in params {
        param.zero_grad();
        param.accumulate(&Tensor::from_slice(&floats(&grads[param.name()])).view_as(param.value()));
    }
}

fn assert_values(params: &[Param], expected: &Value, at: &str) {
    for param in params {
        let expected = Tensor::from_slice(&floats(&expected[param.name()])).view_as(param.value());
        let difference = (param.value() - expected).abs().max().double_value(&[]);
        assert!(difference <= 2e-7, "{at} {}: off by {difference}", param.name());
    }
}

#[test]
fn adamw_takes_the_steps_of_pytorch() {
    let fixture = fixture();
    for (number, case) in fixture["adamw"].as_array().unwrap().iter().enumerate() {
        let params = params(case, &fixture["shapes"]);
        let all: Vec<&Param> = params.iter().collect();
        let mut optimizer = AdamW::new(settings(case));
        for (step, recorded) in case["steps"].as_array().unwrap().iter().enumerate() {
            let at = format!("case {number} step {step}");
            set_grads(&params, &recorded["grads"]);
            let norm = global_norm(&all);
            let expected = recorded["norm"].as_f64().unwrap();
            assert!((norm - expected).abs() <= 1e-6 * expected, "{at}: norm {norm}");
            optimizer.step(&all, norm, recorded["rate"].as_f64().unwrap());
            assert_values(&params, &recorded["values"], &at);
        }
    }
}

#[test]
fn state_comes_back_from_a_file_bit_for_bit() {
    let fixture = fixture();
    let case = &fixture["adamw"][0];
    let steps = case["steps"].as_array().unwrap();
    let params = params(case, &fixture["shapes"]);
    let all: Vec<&Param> = params.iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("optimizer.safetensors");

    let mut optimizer = AdamW::new(settings(case));
    for (step, recorded) in steps.iter().enumerate() {
        set_grads(&params, &recorded["grads"]);
        optimizer.step(&all, global_norm(&all), recorded["rate"].as_f64().unwrap());
        optimizer.save(&file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        optimizer = AdamW::load(settings(case), &file, &all).unwrap();
        optimizer.save(&file).unwrap();
        assert_eq!(bytes, std::fs::read(&file).unwrap());
        assert_values(&params, &recorded["values"], &format!("step {step}"));
    }
}

#[test]
fn biases_and_norms_do_not_decay() {
    use crate::optim::decays;
    assert!(decays("model.layers.0.self_attn.q_proj.lora_A.weight"));
    assert!(decays("model.embed_tokens.weight"));
    assert!(!decays("model.layers.0.self_attn.q_proj.bias"));
    assert!(!decays("model.layers.0.input_layernorm.weight"));
    assert!(!decays("model.layers.0.self_attn.q_norm.weight"));
    assert!(!decays("model.norm.weight"));
}
