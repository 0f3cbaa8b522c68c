//! Which sequences of a pack go through one attention call, and how their rows get there and back.
//!
//! On a CPU each sequence is filled up with zeros to a multiple of [`ROUND`] rows, and all that then have
//! one length are taken together, wherever in the pack they lie. Under a causal mask no token sees the
//! filling, and the filling's gradient is zero, so this is exact. It is worth more than the few rows cost:
//! one call for many short sequences, and in bf16 far fewer shapes, for each of which oneDNN compiles code
//! and keeps it. On other devices sequences of equal length are taken together, without filling.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use crate::kernels;

/// Sequences are filled up to a multiple of so many rows; of twice as many from `LONG` on, where LibTorch
/// takes 64 queries at a time and not 32.
const ROUND: i64 = 32;
const LONG: i64 = 192;

/// Sequences that one attention call takes.
#[derive(Debug)]
pub(super) struct Batch {
    /// First row of each in the pack.
    starts: Vec<i64>,
    /// Rows of each.
    lengths: Vec<i64>,
    /// Rows that each is given.
    pub(super) length: i64,
    /// Row numbers in the pack, `[n·length]` int64, where the CPU kernels are of no use.
    index: Option<Tensor>,
}

impl Batch {
    /// The batches of a pack of sequences of these lengths, one after another.
    pub(super) fn all(lengths: &[i64], device: Device) -> Vec<Self> {
        let mut batches: BTreeMap<i64, Self> = BTreeMap::new();
        let mut start = 0;
        for &own in lengths {
            let length = filled(own, device);
            let empty = || Self { starts: Vec::new(), lengths: Vec::new(), length, index: None };
            let batch = batches.entry(length).or_insert_with(empty);
            batch.starts.push(start);
            batch.lengths.push(own);
            start += own;
        }
        let mut batches: Vec<Self> = batches.into_values().collect();
        if device != Device::Cpu {
            for batch in &mut batches {
                batch.index = Some(batch.rows_of_pack().to_device(device));
            }
        }
        batches
    }

    /// Sequences in it.
    pub(super) fn count(&self) -> i64 {
        self.starts.len() as i64
    }

    /// Rows of `x [T, G·dim]` as `[count, G·times, length, dim]`, each head `times` times.
    pub(super) fn gather(&self, x: &Tensor, dim: i64, times: i64) -> Tensor {
        let rows = if times == 1 && self.is_dense() {
            x.narrow(0, self.starts[0], self.count() * self.length)
        } else if let Some(index) = &self.index {
            repeated(&x.index_select(0, index), dim, times)
        } else {
            kernels::gather_heads(x, self.rows(), dim, times)
        };
        rows.view([self.count(), self.length, -1, dim]).transpose(1, 2)
    }

    /// Writes `x [count, G·times, length, dim]` to its rows of `y [T, G·dim]`, the copies of a head added up.
    pub(super) fn scatter(&self, x: &Tensor, times: i64, y: &Tensor) {
        let dim = x.size()[3];
        let rows = x.transpose(1, 2).reshape([self.count() * self.length, -1]);
        let Some(index) = &self.index else {
            kernels::scatter_heads(&rows, self.rows(), dim, times, y);
            return;
        };
        let width = y.size()[1];
        let summed =
            rows.view([-1, width / dim, times, dim]).sum_dim_intlist(2i64, false, y.kind());
        let _ = y.shallow_clone().index_copy_(0, index, &summed.view([-1, width]));
    }

    /// Whether the rows follow one another in the pack, with nothing to fill up.
    fn is_dense(&self) -> bool {
        let first = self.starts[0];
        let ends = self.starts.iter().zip(0..).all(|(start, i)| *start == first + i * self.length);
        ends && self.lengths.iter().all(|length| *length == self.length)
    }

    fn rows(&self) -> kernels::Rows<'_> {
        kernels::Rows { starts: &self.starts, lengths: &self.lengths, length: self.length }
    }

    fn rows_of_pack(&self) -> Tensor {
        let rows = self.starts.iter().zip(&self.lengths);
        let rows: Vec<i64> = rows.flat_map(|(start, length)| *start..start + length).collect();
        Tensor::from_slice(&rows)
    }
}

/// The rows that a sequence is given.
fn filled(length: i64, device: Device) -> i64 {
    let round = match device {
        Device::Cpu if length >= LONG => 2 * ROUND,
        Device::Cpu => ROUND,
        _ => 1,
    };
    (length + round - 1) / round * round
}

/// `x [n, G·dim]` with each head `times` times side by side.
fn repeated(x: &Tensor, dim: i64, times: i64) -> Tensor {
    if times == 1 {
        return x.shallow_clone();
    }
    let rows = x.size()[0];
    x.view([rows, -1, 1, dim]).expand([rows, -1, times, dim], false).reshape([rows, -1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_like_length_go_together() {
        let batches = Batch::all(&[30, 70, 32, 5, 64], Device::Cpu);
        let shapes: Vec<_> = batches.iter().map(|batch| (batch.length, batch.count())).collect();
        assert_eq!(shapes, [(32, 3), (64, 1), (96, 1)]);
        assert_eq!(batches[0].starts, [0, 100, 132]);
        assert!(!batches[0].is_dense() && batches[1].is_dense());
    }

    #[test]
    fn rows_come_back_where_they_were_and_copies_add_up() {
        let lengths = [3, 40, 2];
        let x = Tensor::randn([45, 8], (tch::Kind::Float, Device::Cpu));
        let y = x.empty_like();
        for batch in Batch::all(&lengths, Device::Cpu) {
            let heads = batch.gather(&x, 4, 3);
            assert_eq!(heads.size(), [batch.count(), 6, batch.length, 4]);
            batch.scatter(&heads, 3, &y);
        }
        assert!((&x * 3.0 - y).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn the_way_by_index_is_the_same() {
        let x = Tensor::randn([45, 8], (tch::Kind::Float, Device::Cpu));
        for mut batch in Batch::all(&[32, 6, 6, 1], Device::Cpu) {
            batch.length = batch.lengths[0];
            if batch.lengths.iter().any(|length| *length != batch.length) {
                continue;
            }
            let by_kernel = batch.gather(&x, 4, 2);
            batch.index = Some(batch.rows_of_pack());
            assert!(batch.gather(&x, 4, 2).equal(&by_kernel));
        }
    }
}
