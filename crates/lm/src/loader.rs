//! Builds modules from a checkpoint: a path into its tensor names, the shapes that the configuration
//! promises, and the number format that the tensors are wanted in.

use tch::Tensor;

use crate::config::ModelConfig;
use crate::layers::{Embedding, RmsNorm, Weight};
use crate::linear::Linear;
use crate::model::LoadOptions;
use crate::models;
use crate::weights::{Weights, WeightsError};

/// A place in a checkpoint, such as `model.layers.3.mlp`.
#[derive(Clone, Debug)]
pub struct Loader<'a> {
    weights: &'a Weights,
    config: &'a ModelConfig,
    path: String,
    options: LoadOptions,
}

/// Why a model cannot be built from its files.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(
        "tensor `{name}` has shape {found:?} where the model's configuration says {expected:?}"
    )]
    Shape { name: String, found: Vec<i64>, expected: Vec<i64> },
    #[error("tensor `{name}` is missing from the model's files")]
    Missing { name: String },
}

impl<'a> Loader<'a> {
    pub fn new(weights: &'a Weights, config: &'a ModelConfig, options: LoadOptions) -> Self {
        Self { weights, config, path: String::new(), options }
    }

    /// The same place, where matrices are not rounded.
    #[must_use]
    pub fn whole(&self) -> Self {
        let options = LoadOptions { quantization: None, ..self.options };
        Self { options, ..self.clone() }
    }

    pub fn config(&self) -> &'a ModelConfig {
        self.config
    }

    /// The place `name` below this one.
    #[must_use]
    pub fn at(&self, name: &str) -> Self {
        Self { path: self.name(name), ..self.clone() }
    }

    fn name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether the checkpoint has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.weights.contains(&self.name(name))
    }

    /// The tensor `name`, which must have this shape.
    pub fn tensor(&self, name: &str, expected: &[i64]) -> Result<Tensor, LoadError> {
        let name = self.checked(name, expected)?;
        Ok(self.weights.tensor(&name, self.options.kind, self.options.device)?)
    }

    /// The matrix `name`, rounded where the checkpoint holds it so or it is wanted so.
    fn matrix(&self, name: &str, expected: &[i64]) -> Result<Weight, LoadError> {
        let full = self.checked(name, expected)?;
        if let Some(rounded) = self.weights.rounded(&full, self.options.device)? {
            return Ok(rounded);
        }
        let mut weight = Weight::Frozen(self.tensor(name, expected)?);
        if let Some(format) = self.options.quantization {
            weight.quantize(format);
        }
        Ok(weight)
    }

    /// The tensor's full name, once its shape is known to be right.
    fn checked(&self, name: &str, expected: &[i64]) -> Result<String, LoadError> {
        let name = self.name(name);
        match self.weights.shape(&name) {
            None => Err(LoadError::Missing { name }),
            Some(found) if found != expected => {
                Err(LoadError::Shape { name, found, expected: expected.to_vec() })
            }
            Some(_) => Ok(name),
        }
    }

    /// A linear layer `[outputs, inputs]`.
    pub fn linear(
        &self,
        name: &str,
        outputs: i64,
        inputs: i64,
        bias: bool,
    ) -> Result<Linear, LoadError> {
        let place = self.at(name);
        let weight = place.matrix("weight", &[outputs, inputs])?;
        let bias = if bias { Some(place.tensor("bias", &[outputs])?) } else { None };
        let bias = bias.map(Weight::Frozen);
        Ok(Linear { name: place.path, weight, bias, lora: None })
    }

    /// A norm over the hidden size.
    pub fn norm(&self, name: &str) -> Result<RmsNorm, LoadError> {
        self.norm_over(name, self.config.hidden_size)
    }

    /// A norm over `features`.
    pub fn norm_over(&self, name: &str, features: i64) -> Result<RmsNorm, LoadError> {
        let place = self.at(name);
        let weight = Weight::Frozen(place.tensor("weight", &[features])?);
        let offset = models::traits(self.config).norm_offset;
        Ok(RmsNorm { name: place.path, weight, eps: self.config.rms_norm_eps, offset })
    }

    /// Token embeddings.
    pub fn embedding(&self, name: &str) -> Result<Embedding, LoadError> {
        let place = self.at(name);
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let weight = Weight::Frozen(place.tensor("weight", &shape)?);
        Ok(Embedding { name: place.path, weight, kind: self.options.kind })
    }
}
