//! Adapters on disk, as PEFT writes and reads them: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! Equal weights give equal bytes: tensors and fields are sorted and nothing depends on the clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::lora::{LoraBias, LoraConfig};
use crate::model::{AttachError, Model};

pub const ADAPTER_CONFIG: &str = "adapter_config.json";
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of the base model's modules.
pub(crate) const PREFIX: &str = "base_model.model.";

/// Why an adapter cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    #[error("cannot write adapter file {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read adapter file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot understand adapter file {}: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("cannot use adapter {}: its field `{field}` is {value}, which is not supported", path.display())]
    Unsupported { path: PathBuf, field: String, value: String },
    #[error("cannot use adapter {} with this base model: {reason}", path.display())]
    Mismatch { path: PathBuf, reason: String },
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Writes what is trained as a PEFT adapter into `folder`, which has to exist.
///
/// `base_model` is how the user names the base model.
pub fn save(
    model: &Model,
    config: &LoraConfig,
    base_model: &str,
    folder: &Path,
) -> Result<(), PeftError> {
    let tensors: BTreeMap<String, Tensor> = model
        .trainable()
        .iter()
        .map(|param| (format!("{PREFIX}{}", param.name()), param.value().shallow_clone()))
        .collect();
    let path = folder.join(ADAPTER_WEIGHTS);
    write_tensors(&path, &tensors).map_err(|source| PeftError::Write { path, source })?;
    let path = folder.join(ADAPTER_CONFIG);
    let text = format!("{:#}\n", config_json(config, base_model, &targeted(&tensors)));
    fs::write(&path, text).map_err(|source| PeftError::Write { path, source })
}

/// Attaches the adapter in `folder` to a model that has none.
pub fn load(model: &mut Model, folder: &Path) -> Result<LoraConfig, PeftError> {
    let config = config(folder)?;
    let path = folder.join(ADAPTER_WEIGHTS);
    let tensors = read_tensors(&path)?;
    model.attach_lora(&config, 0)?;
    assign(model, &path, tensors)?;
    Ok(config)
}

/// The configuration of the adapter in `folder`.
pub fn config(folder: &Path) -> Result<LoraConfig, PeftError> {
    let path = folder.join(ADAPTER_CONFIG);
    let text = fs::read_to_string(&path)
        .map_err(|source| PeftError::Read { path: path.clone(), source })?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| PeftError::Format { path: path.clone(), reason: error.to_string() })?;
    read_config(&path, &value)
}

/// Puts the tensors of an adapter file into the model's trained parameters.
pub fn load_weights(model: &Model, path: &Path) -> Result<(), PeftError> {
    assign(model, path, read_tensors(path)?)
}

fn assign(
    model: &Model,
    path: &Path,
    mut tensors: BTreeMap<String, Tensor>,
) -> Result<(), PeftError> {
    let mismatch = |reason: String| PeftError::Mismatch { path: path.to_owned(), reason };
    for param in model.trainable() {
        let name = format!("{PREFIX}{}", param.name());
        let Some(tensor) = tensors.remove(&name) else {
            return Err(mismatch(format!("tensor `{name}` is missing")));
        };
        let (found, expected) = (tensor.size(), param.value().size());
        if found != expected {
            return Err(mismatch(format!(
                "tensor `{name}` has shape {found:?}, expected {expected:?}"
            )));
        }
        if tensor.isfinite().all().int64_value(&[]) == 0 {
            return Err(mismatch(format!("tensor `{name}` holds values that are not finite")));
        }
        param.assign(&tensor);
    }
    match tensors.into_keys().next() {
        Some(name) => Err(mismatch(format!("tensor `{name}` belongs to no module"))),
        None => Ok(()),
    }
}

/// Names of the modules that carry low-rank matrices, without their path where that is unambiguous
/// in PEFT's sense.
fn targeted(tensors: &BTreeMap<String, Tensor>) -> BTreeSet<String> {
    tensors
        .keys()
        .filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix(".lora_A.weight"))
        .map(str::to_owned)
        .collect()
}

/// The last parts of the module names, where no other module of the model shares them; PEFT would
/// else attach an adapter to modules that have none in the file.
fn short_names(config: &LoraConfig, targeted: &BTreeSet<String>) -> Vec<String> {
    let plain = config.exclude_modules.is_empty()
        && config.target_modules.iter().all(|target| {
            target == "all-linear" || target.chars().all(|c| c.is_alphanumeric() || c == '_')
        });
    if !plain {
        return targeted.iter().cloned().collect();
    }
    let last = |name: &String| name.rsplit('.').next().unwrap_or_default().to_owned();
    targeted.iter().map(last).collect::<BTreeSet<_>>().into_iter().collect()
}

fn config_json(config: &LoraConfig, base_model: &str, targeted: &BTreeSet<String>) -> Value {
    let modules_to_save =
        (!config.modules_to_save.is_empty()).then(|| config.modules_to_save.clone());
    let alpha =
        if config.alpha.fract() == 0.0 { json!(config.alpha as i64) } else { json!(config.alpha) };
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": match config.bias {
            LoraBias::None => "none",
            LoraBias::All => "all",
            LoraBias::LoraOnly => "lora_only",
        },
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": modules_to_save,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": short_names(config, targeted),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rslora,
    })
}

fn read_config(path: &Path, value: &Value) -> Result<LoraConfig, PeftError> {
    let unsupported = |field: &str| PeftError::Unsupported {
        path: path.to_owned(),
        field: field.to_owned(),
        value: value[field].to_string(),
    };
    if value["peft_type"] != "LORA" {
        return Err(unsupported("peft_type"));
    }
    for field in ["use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora"] {
        if value[field].as_bool() == Some(true) {
            return Err(unsupported(field));
        }
    }
    for field in ["rank_pattern", "alpha_pattern"] {
        if value[field].as_object().is_some_and(|map| !map.is_empty()) {
            return Err(unsupported(field));
        }
    }
    for field in
        ["layers_to_transform", "layer_replication", "target_parameters", "trainable_token_indices"]
    {
        if !(value[field].is_null() || value[field].as_array().is_some_and(Vec::is_empty)) {
            return Err(unsupported(field));
        }
    }
    let rank = value["r"].as_i64().filter(|rank| *rank > 0).ok_or_else(|| unsupported("r"))?;
    Ok(LoraConfig {
        rank,
        alpha: value["lora_alpha"].as_f64().ok_or_else(|| unsupported("lora_alpha"))?,
        dropout: value["lora_dropout"].as_f64().unwrap_or(0.0),
        target_modules: names(&value["target_modules"])
            .ok_or_else(|| unsupported("target_modules"))?,
        exclude_modules: names(&value["exclude_modules"]).unwrap_or_default(),
        rslora: value["use_rslora"].as_bool().unwrap_or(false),
        bias: match value["bias"].as_str() {
            None | Some("none") => LoraBias::None,
            Some("all") => LoraBias::All,
            Some("lora_only") => LoraBias::LoraOnly,
            Some(_) => return Err(unsupported("bias")),
        },
        modules_to_save: names(&value["modules_to_save"]).unwrap_or_default(),
    })
}

/// One name or pattern, or a list of names.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(names) => names.iter().map(|name| Some(name.as_str()?.to_owned())).collect(),
        _ => None,
    }
}

/// A tensor's fp32 bytes, little-endian.
struct Bytes {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn of(tensor: &Tensor) -> Self {
        let shape = tensor.size().iter().map(|size| *size as usize).collect();
        let flat = tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous().view(-1);
        let values = Vec::<f32>::try_from(&flat).expect("a flat fp32 tensor");
        Self { shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors as fp32 in the order of their names.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> std::io::Result<()> {
    let bytes: Vec<(&String, Bytes)> =
        tensors.iter().map(|(name, tensor)| (name, Bytes::of(tensor))).collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = bytes.iter().map(|(name, bytes)| (name.as_str(), bytes));
    let data = safetensors::serialize(views, Some(metadata)).map_err(std::io::Error::other)?;
    fs::write(path, data)
}

/// Reads tensors of any floating-point format as fp32.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, PeftError> {
    let data =
        fs::read(path).map_err(|source| PeftError::Read { path: path.to_owned(), source })?;
    let fault = |reason: String| PeftError::Format { path: path.to_owned(), reason };
    let file = SafeTensors::deserialize(&data).map_err(|error| fault(error.to_string()))?;
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                other => {
                    return Err(fault(format!("tensor `{name}` is {other:?}, not floating point")));
                }
            };
            let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
                .map_err(|error| fault(format!("tensor `{name}`: {error}")))?;
            Ok((name, tensor.to_kind(Kind::Float)))
        })
        .collect()
}
