//! Gemma 3, its text models.
//!
//! - norms before and after both attention and feed-forward network; their weights are offsets
//!   from one
//! - every head's query and key go through an RMS norm before they are rotated
//! - layers with sliding attention are rotated at a pace of their own
//! - feed-forward network gated by GELU

use std::rc::Rc;

use super::llama::Mlp;
use super::{Block, Module};
use crate::attention::{Context, Heads};
use crate::config::LayerType;
use crate::layers::RmsNorm;
use crate::linear::{Linear, together};
use crate::loader::{LoadError, Loader};
use crate::tape::{Tape, Var};

#[derive(Debug)]
pub(crate) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: Mlp,
    post_feedforward_layernorm: RmsNorm,
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Over the features of one head.
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    heads: Heads,
    sliding: bool,
    layer: usize,
}

impl Layer {
    pub(crate) fn new(loader: &Loader<'_>, index: usize) -> Result<Self, LoadError> {
        Ok(Self {
            input_layernorm: loader.norm("input_layernorm")?,
            self_attn: Attention::new(&loader.at("self_attn"), index)?,
            post_attention_layernorm: loader.norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: loader.norm("pre_feedforward_layernorm")?,
            mlp: Mlp::new(&loader.at("mlp"))?,
            post_feedforward_layernorm: loader.norm("post_feedforward_layernorm")?,
        })
    }
}

impl Block for Layer {
    fn forward<'m>(&'m self, tape: &Tape<'m>, x: Var<'m>, context: &Rc<Context<'m>>) -> Var<'m> {
        let shared = Rc::clone(context);
        let x = tape.segment(x, move |tape, x| {
            let h = self.input_layernorm.forward(tape, &x);
            let h = self.self_attn.forward(tape, &h, &shared);
            let h = self.self_attn.o_proj.forward(tape, &h);
            tape.add(&x, &self.post_attention_layernorm.forward(tape, &h))
        });
        tape.segment(x, move |tape, x| {
            let h = self.pre_feedforward_layernorm.forward(tape, &x);
            let h = self.mlp.forward(tape, &h);
            let h = self.mlp.down_proj.forward(tape, &h);
            tape.add(&x, &self.post_feedforward_layernorm.forward(tape, &h))
        })
    }

    fn modules(&mut self) -> Vec<Module<'_>> {
        vec![
            Module::Norm(&mut self.input_layernorm),
            Module::Linear(&mut self.self_attn.q_proj),
            Module::Linear(&mut self.self_attn.k_proj),
            Module::Linear(&mut self.self_attn.v_proj),
            Module::Linear(&mut self.self_attn.o_proj),
            Module::Norm(&mut self.self_attn.q_norm),
            Module::Norm(&mut self.self_attn.k_norm),
            Module::Norm(&mut self.post_attention_layernorm),
            Module::Norm(&mut self.pre_feedforward_layernorm),
            Module::Linear(&mut self.mlp.gate_proj),
            Module::Linear(&mut self.mlp.up_proj),
            Module::Linear(&mut self.mlp.down_proj),
            Module::Norm(&mut self.post_feedforward_layernorm),
        ]
    }
}

impl Attention {
    fn new(loader: &Loader<'_>, layer: usize) -> Result<Self, LoadError> {
        let config = loader.config();
        let heads = Heads::of(config, layer);
        let (d, q, kv) = (config.hidden_size, heads.query * heads.dim, heads.key_value * heads.dim);
        Ok(Self {
            q_proj: loader.linear("q_proj", q, d, config.attention_bias)?,
            k_proj: loader.linear("k_proj", kv, d, config.attention_bias)?,
            v_proj: loader.linear("v_proj", kv, d, config.attention_bias)?,
            o_proj: loader.linear("o_proj", d, q, config.output_bias)?,
            q_norm: loader.norm_over("q_norm", heads.dim)?,
            k_norm: loader.norm_over("k_norm", heads.dim)?,
            heads,
            sliding: config.layer_types[layer] == LayerType::Sliding,
            layer,
        })
    }

    /// Up to the output projection.
    fn forward<'m>(&'m self, tape: &Tape<'m>, h: &Var<'m>, context: &Context<'m>) -> Var<'m> {
        let [q, k, v] = together(tape, h, [&self.q_proj, &self.k_proj, &self.v_proj]);
        let (q, k) = (self.q_norm.forward(tape, &q), self.k_norm.forward(tape, &k));
        let local = context.rope_local.as_ref().filter(|_| self.sliding);
        let rope = local.unwrap_or(&context.rope);
        let (q, k) = (tape.rope(&q, rope, self.heads.dim), tape.rope(&k, rope, self.heads.dim));
        tape.attention([&q, &k, &v], self.heads, self.layer, context)
    }
}
