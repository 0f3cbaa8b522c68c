//! Decoding one tensor: in pieces, by several threads, into its final place.

use std::ops::Range;
use std::thread;

use tch::{Device, Kind, Tensor};

use super::dequant::{Stored, dequantize, half};
use super::mapped::Mapped;
use super::names::Adjust;
use super::{Entry, WeightsError};

/// Elements decoded at a time. Small enough for the cache, and below the 32,768 elements from which
/// LibTorch would start its own threads inside ours.
const PIECE: usize = 16 * 1024;
/// Tensors with fewer elements are decoded by the calling thread alone.
const PARALLEL: usize = 256 * 1024;
/// Bytes read from the file before their pages are given back.
const KEEP: usize = 1 << 20;

/// Loads the tensor of `entry` as `kind`. It comes into being in the memory of the processor, and is
/// moved to `device` when it is whole.
pub(super) fn load(
    file: &Mapped,
    name: &str,
    entry: &Entry,
    kind: Kind,
    device: Device,
) -> Result<Tensor, WeightsError> {
    let stored = entry.stored.ok_or_else(|| WeightsError::Type {
        path: file.path().to_owned(),
        tensor: name.to_owned(),
        dtype: entry.dtype.clone(),
    })?;
    let torch = |source| WeightsError::Torch { tensor: name.to_owned(), source };
    let target = Tensor::f_empty(entry.shape.as_slice(), (kind, Device::Cpu)).map_err(torch)?;
    let units = Units::new(stored, entry);
    let flat = target.f_view([-1_i64]).map_err(torch)?;
    let decode = |part: Range<usize>, target: Tensor| {
        let mut job = Job { file, bytes: &file.bytes()[entry.range.clone()], entry, stored, units };
        job.fill(part, &target)
    };
    let outcome = spread(&flat, units, decode);
    file.drop_pages(entry.range.clone());
    outcome.map_err(|fault| match fault {
        PieceFault::Torch(source) => torch(source),
        PieceFault::NotFinite { at, value } => WeightsError::NotFinite {
            path: file.path().to_owned(),
            tensor: name.to_owned(),
            value,
            position: position(at, &entry.shape),
        },
    })?;
    target.f_to(device).map_err(torch)
}

/// What a tensor is cut into: runs of elements that are decoded together. Rows where they are to be
/// moved, else single blocks.
#[derive(Debug, Clone, Copy)]
struct Units {
    count: usize,
    elements: usize,
    bytes: usize,
}

impl Units {
    fn new(stored: Stored, entry: &Entry) -> Self {
        let total: i64 = entry.shape.iter().product();
        let (block, block_bytes) = stored.block();
        let elements = match entry.adjust {
            Adjust::UnpermuteRows { .. } => entry.shape[1..].iter().product::<i64>() as usize,
            Adjust::None | Adjust::MinusOne => block,
        };
        let count = (total as usize).checked_div(elements).unwrap_or(0);
        Self { count, elements, bytes: elements / block * block_bytes }
    }
}

enum PieceFault {
    Torch(tch::TchError),
    /// `at` counts elements of the decoded tensor from the start.
    NotFinite {
        at: usize,
        value: f64,
    },
}

impl From<tch::TchError> for PieceFault {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error)
    }
}

/// Shares the units of a tensor among the processors.
fn spread(
    flat: &Tensor,
    units: Units,
    fill: impl Fn(Range<usize>, Tensor) -> Result<(), PieceFault> + Sync,
) -> Result<(), PieceFault> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if units.count * units.elements < PARALLEL || threads == 1 {
        return fill(0..units.count, flat.shallow_clone());
    }
    let share = units.count.div_ceil(threads);
    let mut parts = Vec::new();
    for start in (0..units.count).step_by(share) {
        let part = start..units.count.min(start + share);
        let (from, length) = (part.start * units.elements, part.len() * units.elements);
        parts.push((part, flat.f_narrow(0, from as i64, length as i64)?));
    }
    let fill = &fill;
    thread::scope(|scope| {
        let workers: Vec<_> = parts
            .into_iter()
            .map(|(part, target)| scope.spawn(move || fill(part, target)))
            .collect();
        // The first part's fault is told, so that the message does not depend on timing.
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// The work of one thread on one tensor.
struct Job<'a> {
    file: &'a Mapped,
    bytes: &'a [u8],
    entry: &'a Entry,
    stored: Stored,
    units: Units,
}

impl Job<'_> {
    /// Decodes the units `part` into `target`, a flat view of their place.
    fn fill(&mut self, part: Range<usize>, target: &Tensor) -> Result<(), PieceFault> {
        let step = (PIECE / self.units.elements.max(1)).max(1);
        let mut raw = Vec::new();
        let mut values =
            vec![0.0; if self.stored.is_quantized() { step * self.units.elements } else { 0 }];
        let mut kept = part.start * self.units.bytes;
        for start in part.clone().step_by(step) {
            let piece = start..part.end.min(start + step);
            let from = (start - part.start) * self.units.elements;
            let length = piece.len() * self.units.elements;
            let decoded = self.decode(piece.clone(), &mut raw, &mut values)?;
            target.f_narrow(0, from as i64, length as i64)?.f_copy_(&decoded)?;
            let read = piece.end * self.units.bytes;
            if read - kept >= KEEP {
                let base = self.entry.range.start;
                self.file.drop_pages(base + kept..base + read);
                kept = read;
            }
        }
        Ok(())
    }

    fn decode(
        &self,
        piece: Range<usize>,
        raw: &mut Vec<u8>,
        values: &mut [f32],
    ) -> Result<Tensor, PieceFault> {
        let bytes = self.gather(&piece, raw);
        let first = piece.start * self.units.elements;
        let length = piece.len() * self.units.elements;
        let found = if self.stored.is_quantized() {
            let values = &mut values[..length];
            dequantize(self.stored, bytes, values);
            values.iter().position(|value| !value.is_finite()).map(|at| (at, f64::from(values[at])))
        } else {
            not_finite(self.stored, bytes)
        };
        if let Some((at, value)) = found {
            return Err(PieceFault::NotFinite { at: first + at, value });
        }
        let decoded = if self.stored.is_quantized() {
            Tensor::f_from_slice(&values[..length])?
        } else {
            Tensor::f_from_data_size(bytes, &[length as i64], plain_kind(self.stored))?
        };
        match self.entry.adjust {
            Adjust::MinusOne => Ok(decoded.f_to_kind(Kind::Float)?.f_sub_scalar(1.0)?),
            Adjust::None | Adjust::UnpermuteRows { .. } => Ok(decoded),
        }
    }

    /// The stored bytes of the units `piece`, put in order where rows have to be moved.
    fn gather<'b>(&'b self, piece: &Range<usize>, raw: &'b mut Vec<u8>) -> &'b [u8] {
        let width = self.units.bytes;
        let Adjust::UnpermuteRows { heads } = self.entry.adjust else {
            return &self.bytes[piece.start * width..piece.end * width];
        };
        // GGUF keeps the rows of a head as pairs (i, 0), (i, 1); they go to (0, i), (1, i).
        let half = (self.units.count / heads as usize / 2).max(1);
        raw.clear();
        for row in piece.clone() {
            let (head, within) = (row / (2 * half), row % (2 * half));
            let from = head * 2 * half + (within % half) * 2 + within / half;
            raw.extend_from_slice(&self.bytes[from * width..(from + 1) * width]);
        }
        raw
    }
}

fn plain_kind(stored: Stored) -> Kind {
    match stored {
        Stored::F64 => Kind::Double,
        Stored::F16 => Kind::Half,
        Stored::Bf16 => Kind::BFloat16,
        _ => Kind::Float,
    }
}

/// The first value of a plain type that is NaN or infinite: all bits of its exponent are set.
fn not_finite(stored: Stored, bytes: &[u8]) -> Option<(usize, f64)> {
    let short = |mask: u16| {
        bytes.chunks_exact(2).position(|b| u16::from_le_bytes([b[0], b[1]]) & mask == mask)
    };
    match stored {
        Stored::F16 => short(0x7c00).map(|at| (at, f64::from(half(bytes, 2 * at)))),
        Stored::Bf16 => short(0x7f80).map(|at| {
            let bits = u32::from_le_bytes([0, 0, bytes[2 * at], bytes[2 * at + 1]]);
            (at, f64::from(f32::from_bits(bits)))
        }),
        Stored::F64 => {
            let values = bytes.as_chunks::<8>().0;
            let at = values.iter().position(|&b| !f64::from_le_bytes(b).is_finite())?;
            Some((at, f64::from_le_bytes(values[at])))
        }
        _ => {
            let values = bytes.as_chunks::<4>().0;
            let at = values.iter().position(|&b| !f32::from_le_bytes(b).is_finite())?;
            Some((at, f64::from(f32::from_le_bytes(values[at]))))
        }
    }
}

/// The index of the `at`-th element in each dimension.
fn position(at: usize, shape: &[i64]) -> Vec<i64> {
    let mut rest = at as i64;
    let mut position: Vec<i64> = shape
        .iter()
        .rev()
        .map(|&size| {
            let index = rest % size.max(1);
            rest /= size.max(1);
            index
        })
        .collect();
    position.reverse();
    position
}
