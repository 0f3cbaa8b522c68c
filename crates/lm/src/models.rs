//! One file for each architecture, named after `model_type` in the model's configuration, with the
//! field names of its checkpoints.
//!
//! A model file says how a block computes and which tensors it is made of. What all decoders share
//! (embeddings, final norm, head, rotary tables) is in `model.rs`.

use std::fmt::Debug;
use std::rc::Rc;

use crate::attention::Context;
use crate::config::{ModelConfig, ModelType};
use crate::layers::{Embedding, RmsNorm};
use crate::linear::Linear;
use crate::loader::{LoadError, Loader};
use crate::tape::{Tape, Var};

pub mod gemma3_text;
pub mod llama;
pub mod phi3;
pub mod qwen3;

/// A layer of a decoder: attention and feed-forward network with their residual connections.
pub trait Block: Debug {
    /// `x [T, D]` to `[T, D]`.
    fn forward<'m>(&'m self, tape: &Tape<'m>, x: Var<'m>, context: &Rc<Context<'m>>) -> Var<'m>;

    /// Every module that holds tensors, in the order of the checkpoint.
    fn modules(&mut self) -> Vec<Module<'_>>;
}

/// A module that holds tensors.
#[derive(Debug)]
pub enum Module<'a> {
    Linear(&'a mut Linear),
    Norm(&'a mut RmsNorm),
    Embedding(&'a mut Embedding),
}

/// What an architecture adds to the shape that all decoders share.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traits {
    /// Factor on the embeddings.
    pub embedding_scale: Option<f64>,
    /// Added to the weights of norms.
    pub norm_offset: f64,
}

/// What the architecture adds to the common shape.
pub fn traits(config: &ModelConfig) -> Traits {
    match config.model_type {
        ModelType::Llama
        | ModelType::Mistral
        | ModelType::Qwen2
        | ModelType::Qwen3
        | ModelType::Phi3 => Traits::default(),
        ModelType::Gemma3Text => {
            Traits { embedding_scale: Some((config.hidden_size as f64).sqrt()), norm_offset: 1.0 }
        }
    }
}

/// Builds layer `index` from the tensors below `loader`.
pub fn block(loader: &Loader<'_>, index: usize) -> Result<Box<dyn Block>, LoadError> {
    Ok(match loader.config().model_type {
        ModelType::Llama | ModelType::Mistral | ModelType::Qwen2 => {
            Box::new(llama::Layer::new(loader, index)?)
        }
        ModelType::Qwen3 => Box::new(qwen3::Layer::new(loader, index)?),
        ModelType::Gemma3Text => Box::new(gemma3_text::Layer::new(loader, index)?),
        ModelType::Phi3 => Box::new(phi3::Layer::new(loader, index)?),
    })
}
