//! The layers that every decoder is made of, beside linear layers, rotary positions and attention:
//! embeddings, RMS norm, gated activations, and the glue between them.
//!
//! Shapes: `T` packed tokens, `D` the hidden size, `F` the feed-forward size, `N` chosen rows.

mod weight;

use tch::{Kind, Tensor};

use crate::config::Activation;
use crate::kernels;
use crate::tape::{Mode, Tape, Var};

pub use weight::{Quantization, Weight};

/// Token embeddings, `[V, D]`.
#[derive(Debug)]
pub struct Embedding {
    pub name: String,
    pub weight: Weight,
    /// Number format of the activations.
    pub kind: Kind,
}

impl Embedding {
    /// `ids [T]` to `[T, D]`.
    pub fn forward<'m>(&'m self, tape: &Tape<'m>, ids: &Tensor) -> Var<'m> {
        let rows = match &self.weight {
            Weight::Frozen(table) => table.index_select(0, ids),
            Weight::Int8 { .. } | Weight::Nf4(_) => {
                self.weight.value(self.kind).index_select(0, ids)
            }
            Weight::Trained(param) => param.value().index_select(0, ids),
        };
        let rows = rows.to_kind(self.kind);
        let Some(param) = self.weight.trained().filter(|_| tape.records()) else {
            return tape.constant(rows);
        };
        let (y, ids) = (tape.tracked(rows), ids.shallow_clone());
        let slot = y.slot();
        tape.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            let mut dw = Tensor::zeros_like(param.value());
            param.accumulate(&dw.index_add_(0, &ids, &dy.to_kind(Kind::Float)));
        });
        y
    }
}

/// Root-mean-square norm (Zhang and Sennrich 2019) over the last `weight.len()` features.
#[derive(Debug)]
pub struct RmsNorm {
    pub name: String,
    pub weight: Weight,
    pub eps: f64,
    /// Added to the weight: 1 in Gemma, 0 elsewhere.
    pub offset: f64,
}

impl RmsNorm {
    /// Normalises rows of `x [T, k·n]` in groups of `n`, the length of the weight.
    pub fn forward<'m>(&'m self, tape: &Tape<'m>, x: &Var<'m>) -> Var<'m> {
        let input = self.grouped(x.tensor());
        let weight = self.weight.value(input.kind());
        if tape.mode() != Mode::Autograd && kernels::supports(&input) {
            return self.forward_fused(tape, x, input, weight);
        }
        let rstd = self.rstd(&input);
        let y = self.scaled(&input, &rstd).view_as(x.tensor());
        if !tape.wants(&[x], self.weight.trained().is_some()) {
            return tape.constant(y);
        }
        let (y, input_slot) = (tape.tracked(y), x.slot());
        let slot = y.slot();
        tape.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            self.accumulate(&dy, &input, &rstd);
            grads.add_owned(
                input_slot,
                self.backward(&self.grouped(&dy), &input, &rstd).view_as(&dy),
            );
        });
        y
    }

    fn forward_fused<'m>(
        &'m self,
        tape: &Tape<'m>,
        x: &Var<'m>,
        input: Tensor,
        weight: Tensor,
    ) -> Var<'m> {
        let (y, rstd) = kernels::rms_norm(&input, &weight, self.eps, self.offset);
        let y = y.view_as(x.tensor());
        if !tape.wants(&[x], self.weight.trained().is_some()) {
            return tape.constant(y);
        }
        let offset = self.offset;
        let shape = x.tensor().size();
        let [again, again_weight, again_rstd] = [&input, &weight, &rstd].map(Tensor::shallow_clone);
        let y = tape.tracked(y).with_recipe(move || {
            kernels::rms_norm_again(&again, &again_weight, &again_rstd, offset).view(&shape[..])
        });
        let (slot, input_slot) = (y.slot(), x.slot());
        tape.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            self.accumulate(&dy, &input, &rstd);
            let dx = kernels::rms_norm_backward(&self.grouped(&dy), &input, &weight, &rstd, offset);
            grads.add_owned(input_slot, dx.view_as(&dy));
        });
        y
    }

    fn grouped(&self, x: &Tensor) -> Tensor {
        x.reshape([-1, self.weight.size()[0]])
    }

    /// `1 / sqrt(mean(x²) + eps)`, `[rows, 1]`, fp32.
    fn rstd(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        (x.square().mean_dim(-1i64, true, Kind::Float) + self.eps).rsqrt()
    }

    fn scaled(&self, x: &Tensor, rstd: &Tensor) -> Tensor {
        let kind = x.kind();
        let normal = x.to_kind(Kind::Float) * rstd;
        if self.offset == 0.0 {
            normal.to_kind(kind) * self.weight.value(kind)
        } else {
            (normal * (self.weight.value(Kind::Float) + self.offset)).to_kind(kind)
        }
    }

    /// `dw = sum(dy·x·rstd)`, where the weight is trained.
    fn accumulate(&self, dy: &Tensor, x: &Tensor, rstd: &Tensor) {
        if let Some(param) = self.weight.trained() {
            let normal = x.to_kind(Kind::Float) * rstd;
            let dw = self.grouped(dy).to_kind(Kind::Float) * normal;
            param.accumulate(&dw.sum_dim_intlist(0i64, false, Kind::Float));
        }
    }

    /// With `n` features and `g = dy·w`: `dx = rstd·(g - x·rstd²·sum(g·x)/n)`.
    fn backward(&self, dy: &Tensor, x: &Tensor, rstd: &Tensor) -> Tensor {
        let (kind, n) = (x.kind(), x.size()[1] as f64);
        let (dy, x) = (dy.to_kind(Kind::Float), x.to_kind(Kind::Float));
        let g = dy * (self.weight.value(Kind::Float) + self.offset);
        let mean = (&g * &x).sum_dim_intlist(-1i64, true, Kind::Float) * rstd.square() / n;
        ((g - x * mean) * rstd).to_kind(kind)
    }
}

impl Activation {
    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::Silu => x.silu(),
            Self::GeluTanh => x.gelu("tanh"),
        }
    }

    fn backward(self, dy: &Tensor, x: &Tensor) -> Tensor {
        match self {
            Self::Silu => x.silu_backward(dy),
            Self::GeluTanh => x.gelu_backward(dy, "tanh"),
        }
    }
}

impl<'m> Tape<'m> {
    /// `activation(gate) · up`, both `[T, F]` (Shazeer 2020).
    pub fn gated(&self, activation: Activation, gate: &Var<'m>, up: &Var<'m>) -> Var<'m> {
        let fused = self.mode() != Mode::Autograd && kernels::supports(gate.tensor());
        let product = move |gate: &Tensor, up: &Tensor| {
            if fused { kernels::gated(activation, gate, up) } else { activation.forward(gate) * up }
        };
        let y = product(gate.tensor(), up.tensor());
        if !self.wants(&[gate, up], false) {
            return self.constant(y);
        }
        let (g, u) = (gate.tensor().shallow_clone(), up.tensor().shallow_clone());
        let (again_g, again_u) = (g.shallow_clone(), u.shallow_clone());
        let y = self.tracked(y).with_recipe(move || product(&again_g, &again_u));
        let (slot, gate_slot, up_slot) = (y.slot(), gate.slot(), up.slot());
        self.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            let (dgate, dup) = if fused {
                kernels::gated_backward(activation, &dy, &g, &u)
            } else {
                (activation.backward(&(&dy * &u), &g), activation.forward(&g) * &dy)
            };
            grads.add_owned(up_slot, dup);
            grads.add_owned(gate_slot, dgate);
        });
        y
    }

    /// `a + b`, of equal shape.
    pub fn add(&self, a: &Var<'m>, b: &Var<'m>) -> Var<'m> {
        let y = a.tensor() + b.tensor();
        if !self.records() || (a.slot().is_none() && b.slot().is_none()) {
            return self.constant(y);
        }
        let y = self.tracked(y);
        let (slot, a_slot, b_slot) = (y.slot(), a.slot(), b.slot());
        self.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            grads.add_shared(a_slot, &dy);
            grads.add_shared(b_slot, &dy);
        });
        y
    }

    /// `factor · x`; the factor is rounded to the activations' number format first, as Gemma does.
    pub fn scale(&self, x: &Var<'m>, factor: f64) -> Var<'m> {
        let kind = x.tensor().kind();
        let factor = Tensor::from(factor).to_kind(kind).to_device(x.tensor().device());
        let y = x.tensor() * &factor;
        if !self.records() || x.slot().is_none() {
            return self.constant(y);
        }
        let y = self.tracked(y);
        let (slot, input_slot) = (y.slot(), x.slot());
        self.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            grads.add_owned(input_slot, dy * factor);
        });
        y
    }

    /// The columns of `x [T, sum(sizes)]` as consecutive parts.
    pub fn split(&self, x: &Var<'m>, sizes: &[i64]) -> Vec<Var<'m>> {
        let parts = x.tensor().split_with_sizes(sizes, -1);
        if !self.records() || x.slot().is_none() {
            return parts.into_iter().map(|part| self.constant(part)).collect();
        }
        let input_slot = x.slot();
        let whole = x.tensor().shallow_clone();
        let parts: Vec<Var<'m>> = parts.into_iter().map(|part| self.tracked(part)).collect();
        let slots: Vec<_> = parts.iter().map(Var::slot).collect();
        let sizes = sizes.to_vec();
        self.record(move |grads| {
            let dx = Tensor::zeros_like(&whole);
            let mut column = 0;
            for (slot, size) in slots.into_iter().zip(sizes) {
                if let Some(dy) = grads.take(slot) {
                    dx.narrow(-1, column, size).copy_(&dy);
                }
                column += size;
            }
            grads.add_owned(input_slot, dx);
        });
        parts
    }

    /// Rows of `x [T, D]` by distinct indices `[N]`: `[N, D]`.
    pub fn rows(&self, x: &Var<'m>, rows: &Tensor) -> Var<'m> {
        let y = x.tensor().index_select(0, rows);
        if !self.records() || x.slot().is_none() {
            return self.constant(y);
        }
        let y = self.tracked(y);
        let (slot, input_slot) = (y.slot(), x.slot());
        let (shape, rows) = (x.tensor().size(), rows.shallow_clone());
        self.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            let mut dx = Tensor::zeros(&shape[..], (dy.kind(), dy.device()));
            grads.add_owned(input_slot, dx.index_copy_(0, &rows, &dy));
        });
        y
    }

    /// Whether a hand-written backward step is wanted for an operation on `inputs`.
    pub(crate) fn wants(&self, inputs: &[&Var<'m>], trained: bool) -> bool {
        self.mode() == Mode::Explicit && (trained || inputs.iter().any(|x| x.slot().is_some()))
    }
}
