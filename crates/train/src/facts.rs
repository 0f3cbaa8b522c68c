//! What planning needs to know of a base model, read from its headers.

use api::run_spec::Quantization;
use api::{LinearFacts, ModelFacts};
use lm::config::{ConfigError, ModelConfig};
use lm::files::ModelFiles;
use lm::weights::{Weights, WeightsError};

/// Why a model's facts cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl FactsError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Weights(error) => error.hint(),
        }
    }
}

/// Reads the configuration and the names and shapes of the weights, but no weights.
pub fn model_facts(files: &ModelFiles) -> Result<ModelFacts, FactsError> {
    let config = ModelConfig::open(files)?;
    let weights = Weights::open(files)?;
    weights.check(&config)?;
    let shapes: Vec<(&str, Vec<i64>)> =
        weights.names().filter_map(|name| Some((name, weights.shape(name)?))).collect();
    // A tied head is sometimes stored all the same; it is no parameter of its own.
    let counted = shapes.iter().filter(|(name, _)| !is_tied_head(&config, name));
    Ok(ModelFacts {
        model_type: config.model_type.as_str().to_owned(),
        parameters: counted.map(|(_, shape)| shape.iter().product::<i64>() as u64).sum(),
        hidden_size: config.hidden_size as u64,
        intermediate_size: config.intermediate_size as u64,
        layers: config.num_hidden_layers as u64,
        attention_heads: config.num_attention_heads as u64,
        key_value_heads: config.num_key_value_heads as u64,
        head_dim: config.head_dim as u64,
        vocabulary: config.vocab_size as u64,
        context: config.max_position_embeddings as u64,
        tied_embeddings: config.tie_word_embeddings,
        quantization: match weights.quantization() {
            None => Quantization::None,
            Some(lm::layers::Quantization::Nf4) => Quantization::Nf4,
            Some(lm::layers::Quantization::Int8) => Quantization::Int8,
        },
        linears: shapes.iter().filter_map(|(name, shape)| linear(&config, name, shape)).collect(),
    })
}

/// Matrices are linear layers, but for the embeddings.
fn linear(config: &ModelConfig, name: &str, shape: &[i64]) -> Option<LinearFacts> {
    let layer = name.strip_suffix(".weight")?;
    let [outputs, inputs] = shape else { return None };
    if layer.ends_with("embed_tokens") || is_tied_head(config, name) {
        return None;
    }
    let (outputs, inputs) = (*outputs as u64, *inputs as u64);
    Some(LinearFacts { name: layer.to_owned(), outputs, inputs })
}

fn is_tied_head(config: &ModelConfig, name: &str) -> bool {
    config.tie_word_embeddings && name == "lm_head.weight"
}
