//! Sequences that begin alike. Their common beginning stands in the pack once, as part of the first of them, and
//! goes through all layers once; attention alone sees every sequence whole.
//!
//! What a token becomes depends on the tokens before it, so that the beginning is the same in each; what it is to
//! blame for adds up over all.

use tch::{Kind, Tensor};

use crate::packed::Packed;

/// The way between the rows of a pack, `T`, and those of its sequences when each is whole, `W`.
#[derive(Debug)]
pub(super) struct Shared {
    /// `[W]` row of the pack.
    whole: Tensor,
    /// `[T]` row of the whole sequences.
    own: Tensor,
    /// `[(n - 1)·beginning]` rows of the whole sequences that repeat the beginning.
    copies: Tensor,
    rows: i64,
    /// Tokens of the beginning.
    beginning: i64,
}

impl Shared {
    /// Nothing where nothing is shared.
    pub(super) fn of(packed: &Packed) -> Option<Self> {
        let beginning = packed.shared();
        if beginning == 0 {
            return None;
        }
        let (mut whole, mut own, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        let (mut row, mut at) = (0, 0);
        for (index, length) in packed.lengths().iter().enumerate() {
            if index > 0 {
                whole.extend(0..beginning);
                copies.extend(at..at + beginning);
                at += beginning;
            }
            whole.extend(row..row + length);
            own.extend(at..at + length);
            row += length;
            at += length;
        }
        let index = |rows: &[i64]| Tensor::from_slice(rows).to_device(packed.ids().device());
        let (whole, own, copies) = (index(&whole), index(&own), index(&copies));
        Some(Self { whole, own, copies, rows: at, beginning })
    }

    /// `[T, …]` to `[W, …]`: each sequence with its beginning.
    pub(super) fn whole(&self, x: &Tensor) -> Tensor {
        x.index_select(0, &self.whole)
    }

    /// `[W, …]` to `[T, …]`: the repetitions left out.
    pub(super) fn own(&self, x: &Tensor) -> Tensor {
        x.index_select(0, &self.own)
    }

    /// The gradient of [`Self::own`].
    pub(super) fn own_backward(&self, dy: &Tensor) -> Tensor {
        let dx = Tensor::zeros([self.rows, dy.size()[1]], (dy.kind(), dy.device()));
        dx.shallow_clone().index_copy_(0, &self.own, dy)
    }

    /// The gradient of [`Self::whole`], added up in fp32.
    pub(super) fn whole_backward(&self, dy: &Tensor) -> Tensor {
        let dx = self.own(dy);
        let copies = dy.index_select(0, &self.copies).view([-1, self.beginning, dy.size()[1]]);
        let beginning = dx.narrow(0, 0, self.beginning);
        let sum = copies.sum_dim_intlist(0i64, false, Kind::Float);
        let sum = sum + beginning.to_kind(Kind::Float);
        beginning.shallow_clone().copy_(&sum);
        dx
    }
}
