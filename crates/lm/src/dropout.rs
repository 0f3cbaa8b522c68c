//! Dropout of adapters' inputs. A mask depends on the step, the sequence and the layer, and on nothing else
//! that goes through the model at once: how a step is cut into micro-batches leaves its losses as they are.

use std::rc::Rc;

use tch::{Kind, Tensor};

use crate::lora::{draw, mix};

/// What the masks of one pass are drawn from.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Of all passes of an optimizer step.
    seed: u64,
    /// Sequences of the step before this pass.
    first: u64,
    /// Rows of each sequence, one after another.
    rows: Rc<[i64]>,
}

impl Dropout {
    /// For sequences of these lengths, of which the first has this number within the step.
    pub fn new(seed: u64, first: u64, lengths: &[i64]) -> Self {
        Self { seed, first, rows: lengths.into() }
    }

    /// For some rows of the tokens alone, in their order.
    pub(crate) fn of_rows(&self, rows: &Tensor) -> Self {
        let rows: Vec<i64> = rows.try_into().expect("rows are int64");
        let mut end = 0;
        let counts = self.rows.iter().map(|length| {
            let start = end;
            end += length;
            rows.iter().filter(|row| (start..end).contains(row)).count() as i64
        });
        Self { rows: counts.collect(), ..*self }
    }

    /// The factors that dropout puts on `x [T, I]`, the input of the layer of this name: 0, or
    /// `1 / (1 - p)`. The same in a recomputed pass.
    pub(crate) fn mask(&self, layer: &str, p: f64, x: &Tensor) -> Tensor {
        let keep = 1.0 - p;
        let mask = Tensor::empty(x.size(), (Kind::Float, x.device()));
        let mut start = 0;
        for (number, rows) in (self.first..).zip(self.rows.iter().copied()) {
            let _ = draw(mix(self.of_sequence(number), layer), || {
                mask.narrow(0, start, rows).bernoulli_float_(keep)
            });
            start += rows;
        }
        (mask / keep).to_kind(x.kind())
    }

    fn of_sequence(&self, number: u64) -> u64 {
        self.seed.rotate_left(29) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03)
    }
}
