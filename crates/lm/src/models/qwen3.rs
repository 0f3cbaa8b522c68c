//! Qwen3.
//!
//! - like Llama, but every head's query and key go through an RMS norm before they are rotated
//! - heads may be wider than `hidden_size / num_attention_heads`

use std::rc::Rc;

use super::llama::Mlp;
use super::{Block, Module};
use crate::attention::{Context, Heads};
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
    /// Over the features of one head.
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    heads: Heads,
    layer: usize,
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
            Module::Norm(&mut self.self_attn.q_norm),
            Module::Norm(&mut self.self_attn.k_norm),
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
        Ok(Self {
            q_proj: loader.linear("q_proj", q, d, config.attention_bias)?,
            k_proj: loader.linear("k_proj", kv, d, config.attention_bias)?,
            v_proj: loader.linear("v_proj", kv, d, config.attention_bias)?,
            o_proj: loader.linear("o_proj", d, q, config.output_bias)?,
            q_norm: loader.norm_over("q_norm", heads.dim)?,
            k_norm: loader.norm_over("k_norm", heads.dim)?,
            heads,
            layer,
        })
    }

    /// Up to the output projection, which [`Linear::residual`] does.
    fn forward<'m>(&'m self, tape: &Tape<'m>, h: &Var<'m>, context: &Context<'m>) -> Var<'m> {
        let [q, k, v] = together(tape, h, [&self.q_proj, &self.k_proj, &self.v_proj]);
        let (q, k) = (self.q_norm.forward(tape, &q), self.k_norm.forward(tape, &k));
        let q = tape.rope(&q, &context.rope, self.heads.dim);
        let k = tape.rope(&k, &context.rope, self.heads.dim);
        tape.attention([&q, &k, &v], self.heads, self.layer, context)
    }
}
