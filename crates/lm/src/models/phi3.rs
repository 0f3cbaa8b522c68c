//! Phi-3, Phi-3.5 and Phi-4-mini.
//!
//! - like Llama, but query, key and value are one matrix, and so are gate and up
//! - rotary positions may turn only the first part of each head, with one set of paces for short
//!   sequences and another for long ones

use std::rc::Rc;

use super::{Block, Module};
use crate::attention::{Context, Heads};
use crate::config::Activation;
use crate::layers::RmsNorm;
use crate::linear::Linear;
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
    /// Rows of all query heads, then of all key heads, then of all value heads.
    qkv_proj: Linear,
    o_proj: Linear,
    heads: Heads,
    layer: usize,
}

#[derive(Debug)]
struct Mlp {
    /// Rows of the gate, then of what it gates.
    gate_up_proj: Linear,
    down_proj: Linear,
    activation: Activation,
    intermediate_size: i64,
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
            Module::Linear(&mut self.self_attn.qkv_proj),
            Module::Linear(&mut self.self_attn.o_proj),
            Module::Norm(&mut self.post_attention_layernorm),
            Module::Linear(&mut self.mlp.gate_up_proj),
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
            qkv_proj: loader.linear("qkv_proj", q + 2 * kv, d, false)?,
            o_proj: loader.linear("o_proj", d, q, false)?,
            heads,
            layer,
        })
    }

    /// Up to the output projection, which [`Linear::residual`] does.
    fn forward<'m>(&'m self, tape: &Tape<'m>, h: &Var<'m>, context: &Context<'m>) -> Var<'m> {
        let (q, kv) = (self.heads.query * self.heads.dim, self.heads.key_value * self.heads.dim);
        let qkv = self.qkv_proj.forward(tape, h);
        let parts = tape.split(&qkv, &[q, kv, kv]);
        let q = tape.rope(&parts[0], &context.rope, self.heads.dim);
        let k = tape.rope(&parts[1], &context.rope, self.heads.dim);
        tape.attention([&q, &k, &parts[2]], self.heads, self.layer, context)
    }
}

impl Mlp {
    fn new(loader: &Loader<'_>) -> Result<Self, LoadError> {
        let config = loader.config();
        let (d, f) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            gate_up_proj: loader.linear("gate_up_proj", 2 * f, d, false)?,
            down_proj: loader.linear("down_proj", d, f, false)?,
            activation: config.hidden_act,
            intermediate_size: f,
        })
    }

    /// Up to the down projection, which [`Linear::residual`] does.
    fn forward<'m>(&'m self, tape: &Tape<'m>, h: &Var<'m>) -> Var<'m> {
        let gate_up = self.gate_up_proj.forward(tape, h);
        let parts = tape.split(&gate_up, &[self.intermediate_size, self.intermediate_size]);
        tape.gated(self.activation, &parts[0], &parts[1])
    }
}
