//! `logits MODEL ADAPTER IDS OUT`: the logits that our engine has of a model with an adapter, for tests
//! that compare them with others'. IDS is a JSON list of token ids; OUT is written as safetensors.

use std::path::Path;

use anyhow::{Context, Result, bail};
use lm::files::ModelFiles;
use lm::model::{LoadOptions, Model};
use tch::{Device, Kind, Tensor};
use tests_numerics::{Sequence, run};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, ids, out] = arguments.as_slice() else {
        bail!("usage: logits MODEL ADAPTER IDS OUT");
    };
    let files = ModelFiles::open(Path::new(model))?;
    let options = LoadOptions { kind: Kind::Float, device: Device::Cpu, quantization: None };
    let mut model = Model::load(&files, options)?;
    lm::peft::load(&mut model, Path::new(adapter))?;
    let ids: Vec<i64> = serde_json::from_slice(&std::fs::read(ids)?).context("ids")?;
    let weights = vec![1.0; ids.len()];
    let logits = run::logits(&model, &[&Sequence { ids, weights }]);
    Tensor::write_safetensors(&[("logits", logits)], out)?;
    Ok(())
}
