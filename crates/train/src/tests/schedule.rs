//! Learning rates against `transformers.get_scheduler`.

use super::fixture;
use crate::schedule::factor;

#[test]
fn learning_rates_are_those_of_transformers() {
    for case in fixture()["schedules"].as_array().unwrap() {
        let schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        let warmup = case["warmup"].as_u64().unwrap();
        let steps = case["steps"].as_u64().unwrap();
        let peak = case["peak"].as_f64().unwrap();
        for (step, expected) in case["rates"].as_array().unwrap().iter().enumerate() {
            let rate = peak * factor(schedule, warmup, steps, step as u64);
            let expected = expected.as_f64().unwrap();
            assert!((rate - expected).abs() <= 1e-15, "{case} step {step}: {rate}");
        }
    }
}
