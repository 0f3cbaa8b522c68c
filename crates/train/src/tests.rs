//! Unit tests of the parts that need no model.
#![expect(clippy::unwrap_used, reason = "tests")]

mod checkpoint;
mod event;
mod optim;
mod report;
mod schedule;

use serde_json::Value;

/// Numbers that `tests/numerics/scripts/make_optim_fixtures.py` dumped from PyTorch and transformers.
fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optim.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}
