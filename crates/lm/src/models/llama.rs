//! Llama 2 and 3, SmolLM2, Mistral and Qwen2.
//!
//! - RMS norm before attention and before the feed-forward network, no norm after them
//! - rotary positions on queries and keys, grouped key-value heads
//! - SwiGLU feed-forward network
//! - Mistral: sliding attention where the configuration has a window
//! - Qwen2: biases on query, key and value

use std::rc::Rc;

use super::{Block, Module};
use crate::attention::{Context, Heads};
use crate::config::Activation;
use crate::layers::RmsNorm;
use crate::linear::{Linear, together};
use crate::loader::{LoadError, Loader};
use crate::tape::{Tape, Var};

#[derive(Debug)]
pub(crate) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    heads: Heads,
    layer: usize,
}

/// The gated feed-forward network.
#[derive(Debug)]
pub(crate) struct Mlp {
    pub(crate) gate_proj: Linear,
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
    activation: Activation,
}

impl Layer {
    pub(crate) fn new(loader: &Loader<'_>, index: usize) -> Result<Self, LoadError> {
        Ok(Self {
            input_layernorm: loader.norm("input_layernorm")?,
            self_attn: Attention::new(&loader.at("self_attn"), index)?,
            post_attention_layernorm: loader.norm("post_attention_layernorm")?,
            mlp: Mlp::new(&loader.at("mlp"))?,
        })
    }
}

impl Block for Layer {
    fn forward<'m>(&'m self, tape: &Tape<'m>, x: Var<'m>, context: &Rc<Context<'m>>) -> Var<'m> {
        let shared = Rc::clone(context);
        let x = tape.segment(x, move |tape, x| {
            let h = self.input_layernorm.forward(tape, &x);
            let h = self.self_attn.forward(tape, &h, &shared);
            self.self_attn.o_proj.residual(tape, &x, &h)
        });
        tape.segment(x, move |tape, x| {
            let h = self.post_attention_layernorm.forward(tape, &x);
            let h = self.mlp.forward(tape, &h);
            self.mlp.down_proj.residual(tape, &x, &h)
        })
    }

    fn modules(&mut self) -> Vec<Module<'_>> {
        vec![
            Module::Norm(&mut self.input_layernorm),
            Module::Linear(&mut self.self_attn.q_proj),
            Module::Linear(&mut self.self_attn.k_proj),
            Module::Linear(&mut self.self_attn.v_proj),
            Module::Linear(&mut self.self_attn.o_proj),
            Module::Norm(&mut self.post_attention_layernorm),
            Module::Linear(&mut self.mlp.gate_proj),
            Module::Linear(&mut self.mlp.up_proj),
            Module::Linear(&mut self.mlp.down_proj),
        ]
    }
}

impl Attention {
    fn new(loader: &Loader<'_>, layer: usize) -> Result<Self, LoadError> {
        let config = loader.config();
        let heads = Heads::of(config, layer);
        let (d, q, kv) = (config.hidden_size, heads.query * heads.dim, heads.key_value * heads.dim);
        let bias = config.attention_bias;
        Ok(Self {
            q_proj: loader.linear("q_proj", q, d, bias)?,
            k_proj: loader.linear("k_proj", kv, d, bias)?,
            v_proj: loader.linear("v_proj", kv, d, bias)?,
            o_proj: loader.linear("o_proj", d, q, config.output_bias)?,
            heads,
            layer,
        })
    }

    /// Up to the output projection, which [`Linear::residual`] does.
    fn forward<'m>(&'m self, tape: &Tape<'m>, h: &Var<'m>, context: &Context<'m>) -> Var<'m> {
        let [q, k, v] = together(tape, h, [&self.q_proj, &self.k_proj, &self.v_proj]);
        let q = tape.rope(&q, &context.rope, self.heads.dim);
        let k = tape.rope(&k, &context.rope, self.heads.dim);
        tape.attention([&q, &k, &v], self.heads, self.layer, context)
    }
}

impl Mlp {
    pub(crate) fn new(loader: &Loader<'_>) -> Result<Self, LoadError> {
        let config = loader.config();
        let (d, f, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Ok(Self {
            gate_proj: loader.linear("gate_proj", f, d, bias)?,
            up_proj: loader.linear("up_proj", f, d, bias)?,
            down_proj: loader.linear("down_proj", d, f, bias)?,
            activation: config.hidden_act,
        })
    }

    /// Up to the down projection, which [`Linear::residual`] does.
    pub(crate) fn forward<'m>(&'m self, tape: &Tape<'m>, h: &Var<'m>) -> Var<'m> {
        let [gate, up] = together(tape, h, [&self.gate_proj, &self.up_proj]);
        tape.gated(self.activation, &gate, &up)
    }
}
