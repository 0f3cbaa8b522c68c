//! Linear layers, frozen or trained, with or without an adapter beside the matrix.
//!
//! Shapes: `x [T, I]`, the matrix `[O, I]`, the adapter's `A [r, I]` and `B [O, r]`.

use std::rc::Rc;

use tch::{Kind, Tensor};

use crate::dropout::Dropout;
use crate::layers::Weight;
use crate::lora::Lora;
use crate::products::{self, add_product, matmul};
use crate::tape::{Gradients, Mode, Saved, Slot, Tape, Var};

/// `y = x·Wᵀ + b`, and what an adapter adds to it.
#[derive(Debug)]
pub struct Linear {
    /// The layer's name in the checkpoint, without `.weight`.
    pub name: String,
    pub weight: Weight,
    pub bias: Option<Weight>,
    pub lora: Option<Lora>,
}

impl Linear {
    pub fn outputs(&self) -> i64 {
        self.weight.size()[0]
    }

    pub fn inputs(&self) -> i64 {
        self.weight.size()[1]
    }

    /// `[T, I]` to `[T, O]`.
    pub fn forward<'m>(&'m self, tape: &Tape<'m>, x: &Var<'m>) -> Var<'m> {
        let [y] = together(tape, x, [self]);
        y
    }

    /// The same where `x` holds only these rows of the tokens.
    pub fn forward_rows<'m>(&'m self, tape: &Tape<'m>, x: &Var<'m>, rows: &Tensor) -> Var<'m> {
        let dropout = tape.dropout().map(|dropout| dropout.of_rows(rows));
        let [y] = together_dropped(tape, x, [self], dropout.as_ref());
        y
    }

    /// `x + forward(h)`: the sum that ends a segment of the model.
    pub fn residual<'m>(&'m self, tape: &Tape<'m>, x: &Var<'m>, h: &Var<'m>) -> Var<'m> {
        if tape.mode() == Mode::Autograd || self.bias.is_some() {
            return tape.add(x, &self.forward(tape, h));
        }
        let parts = Parts::new(tape, vec![self], h, tape.dropout());
        let y = if tape.skips_last_sum() {
            x.tensor().shallow_clone()
        } else {
            let sum = self.weight.product_onto(x.tensor(), h.tensor());
            tape.routed(&self.name, h.tensor(), parts.add_low_rank(0, sum))
        };
        if !tape.records() || (x.slot().is_none() && !parts.wanted()) {
            return tape.constant(y);
        }
        let y = tape.tracked(y);
        let (slot, x_slot) = (y.slot(), x.slot());
        tape.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            grads.add_shared(x_slot, &dy);
            parts.backward(&[Some(dy)], grads);
        });
        y
    }

    fn active_lora(&self) -> Option<&Lora> {
        self.lora.as_ref().filter(|lora| lora.enabled.get())
    }

    fn is_trained(&self) -> bool {
        self.active_lora().is_some()
            || self.weight.trained().is_some()
            || self.bias.as_ref().is_some_and(|bias| bias.trained().is_some())
    }

    fn bias(&self, kind: Kind) -> Option<Tensor> {
        self.bias.as_ref().map(|bias| bias.value(kind))
    }

    /// By operations that LibTorch can differentiate.
    fn forward_tracked(&self, x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        let kind = x.kind();
        let y = products::linear(x, &self.weight.value(kind), self.bias(kind).as_ref());
        let Some(lora) = self.active_lora() else { return y };
        let dropped = match lora.dropout_mask(x, dropout) {
            Some(mask) => x * mask,
            None => x.shallow_clone(),
        };
        let low = matmul(&dropped, &lora.a.cast(kind).tr());
        y + matmul(&low, &lora.b.cast(kind).tr()) * lora.scaling
    }
}

/// Several layers on the same input, such as query, key and value: one product with all their `A`
/// matrices, and one gradient of the input.
pub fn together<'m, const N: usize>(
    tape: &Tape<'m>,
    x: &Var<'m>,
    linears: [&'m Linear; N],
) -> [Var<'m>; N] {
    together_dropped(tape, x, linears, tape.dropout())
}

fn together_dropped<'m, const N: usize>(
    tape: &Tape<'m>,
    x: &Var<'m>,
    linears: [&'m Linear; N],
    dropout: Option<&Dropout>,
) -> [Var<'m>; N] {
    if tape.mode() == Mode::Autograd {
        return linears.map(|linear| tape.constant(linear.forward_tracked(x.tensor(), dropout)));
    }
    let kind = x.tensor().kind();
    let parts = Parts::new(tape, linears.to_vec(), x, dropout);
    let mut index = 0;
    let ys = linears.map(|linear| {
        let y = linear.weight.product(x.tensor(), linear.bias(kind));
        index += 1;
        tape.routed(&linear.name, x.tensor(), parts.add_low_rank(index - 1, y))
    });
    if !tape.records() || !parts.wanted() {
        return ys.map(|y| tape.constant(y));
    }
    let ys = ys.map(|y| tape.tracked(y));
    let slots: Vec<Option<Slot>> = ys.iter().map(Var::slot).collect();
    tape.record(move |grads| {
        let dys: Vec<Option<Tensor>> = slots.into_iter().map(|slot| grads.take(slot)).collect();
        parts.backward(&dys, grads);
    });
    ys
}

/// What the backward step of layers on one input needs.
struct Parts<'m> {
    linears: Vec<&'m Linear>,
    x: Saved<'m>,
    x_slot: Option<Slot>,
    /// All `A` matrices of the group, one below the other: `[R, I]`.
    a: Option<Tensor>,
    /// `x·Aᵀ [T, R]`; with dropout, of each layer's own dropped input.
    low: Option<Tensor>,
    /// Dropout factors of each layer's input `[T, I]`.
    masks: Vec<Option<Rc<Tensor>>>,
}

impl<'m> Parts<'m> {
    fn new(
        tape: &Tape<'m>,
        linears: Vec<&'m Linear>,
        x: &Var<'m>,
        dropout: Option<&Dropout>,
    ) -> Self {
        let (input, kind) = (x.tensor(), x.tensor().kind());
        let loras: Vec<&Lora> = linears.iter().filter_map(|linear| linear.active_lora()).collect();
        let masks: Vec<Option<Rc<Tensor>>> = linears
            .iter()
            .map(|linear| linear.active_lora()?.dropout_mask(input, dropout).map(Rc::new))
            .collect();
        let a = (!loras.is_empty()).then(|| {
            Tensor::cat(&loras.iter().map(|lora| lora.a.cast(kind)).collect::<Vec<_>>(), 0)
        });
        let low = a.as_ref().map(|a| {
            if masks.iter().all(Option::is_none) {
                return matmul(input, &a.tr());
            }
            let parts = linears.iter().zip(&masks).filter_map(|(linear, mask)| {
                let a = linear.active_lora()?.a.cast(kind);
                Some(matmul(&dropped(input, mask.as_deref()), &a.tr()))
            });
            Tensor::cat(&parts.collect::<Vec<_>>(), 1)
        });
        let masks = if tape.records() { masks } else { Vec::new() };
        Self { linears, x: x.save(), x_slot: x.slot(), a, low, masks }
    }

    /// Whether any gradient is wanted.
    fn wanted(&self) -> bool {
        self.x_slot.is_some() || self.linears.iter().any(|linear| linear.is_trained())
    }

    /// Columns of `low` that belong to layer `index`.
    fn columns(&self, index: usize) -> (i64, i64) {
        let rank = |linear: &&Linear| linear.active_lora().map_or(0, Lora::rank);
        (self.linears[..index].iter().map(rank).sum(), rank(&self.linears[index]))
    }

    fn add_low_rank(&self, index: usize, y: Tensor) -> Tensor {
        let (Some(low), Some(lora)) = (&self.low, self.linears[index].active_lora()) else {
            return y;
        };
        let (start, rank) = self.columns(index);
        let b = lora.scaled_b(y.kind()).tr();
        add_product(y, &low.narrow(1, start, rank), &b)
    }

    /// Gradients of the layers and of their input, from those of their outputs.
    fn backward(self, dys: &[Option<Tensor>], grads: &mut Gradients) {
        let needs_x = self.linears.iter().any(|linear| linear.is_trained());
        let x = needs_x.then(|| self.x.get());
        let mut dx: Option<Tensor> = None;
        for (linear, dy) in self.linears.iter().zip(dys) {
            let Some(dy) = dy else { continue };
            if let Some(x) = &x {
                accumulate_matrix(linear, x, dy);
            }
            if self.x_slot.is_some() {
                let weight = linear.weight.value(dy.kind());
                dx = Some(match dx {
                    Some(dx) => add_product(dx, dy, &weight),
                    None => matmul(dy, &weight),
                });
            }
        }
        if let Some(x) = &x {
            dx = self.backward_low_rank(x, dys, dx);
        }
        if let Some(dx) = dx {
            grads.add_owned(self.x_slot, dx);
        }
    }

    /// `dB = s·dyᵀ·low`, `dlow = s·dy·B`, `dA = dlowᵀ·x`, `dx += dlow·A`.
    fn backward_low_rank(
        &self,
        x: &Tensor,
        dys: &[Option<Tensor>],
        dx: Option<Tensor>,
    ) -> Option<Tensor> {
        let (Some(a), Some(low)) = (&self.a, &self.low) else { return dx };
        let dlow = Tensor::zeros_like(low);
        for (index, (linear, dy)) in self.linears.iter().zip(dys).enumerate() {
            let (Some(lora), Some(dy)) = (linear.active_lora(), dy) else { continue };
            let (start, rank) = self.columns(index);
            let part = dlow.narrow(1, start, rank);
            part.shallow_clone().copy_(&matmul(dy, &lora.scaled_b(dy.kind())));
            let db = matmul(&dy.tr(), &low.narrow(1, start, rank)).to_kind(Kind::Float);
            lora.b.accumulate(&(db * lora.scaling));
        }
        let masked = self.masks.iter().any(Option::is_some);
        let da = (!masked).then(|| matmul(&dlow.tr(), x).to_kind(Kind::Float));
        let mut dx = dx;
        for (index, linear) in self.linears.iter().enumerate() {
            let Some(lora) = linear.active_lora() else { continue };
            let (start, rank) = self.columns(index);
            if let Some(da) = &da {
                lora.a.accumulate(&da.narrow(0, start, rank));
                continue;
            }
            let mask = self.masks[index].as_deref();
            let dlow = dlow.narrow(1, start, rank);
            lora.a.accumulate(&matmul(&dlow.tr(), &dropped(x, mask)).to_kind(Kind::Float));
            dx = dx.map(|dx| dx + dropped(&matmul(&dlow, &a.narrow(0, start, rank)), mask));
        }
        if masked {
            return dx;
        }
        dx.map(|dx| add_product(dx, &dlow, a))
    }
}

/// `dW = dyᵀ·x` and `db = sum(dy)`, where these are trained.
fn accumulate_matrix(linear: &Linear, x: &Tensor, dy: &Tensor) {
    if let Some(param) = linear.weight.trained() {
        param.accumulate(&matmul(&dy.tr(), x));
    }
    if let Some(param) = linear.bias.as_ref().and_then(Weight::trained) {
        param.accumulate(&dy.sum_dim_intlist(0i64, false, Kind::Float));
    }
}

fn dropped(x: &Tensor, mask: Option<&Tensor>) -> Tensor {
    match mask {
        Some(mask) => x * mask,
        None => x.shallow_clone(),
    }
}
