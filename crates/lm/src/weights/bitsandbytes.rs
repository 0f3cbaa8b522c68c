//! Rounded matrices in the tensors that bitsandbytes saves them as, beside `NAME.weight`:
//!
//! - 4 bits: `NAME.weight.absmax` and `.quant_map`, with double quantization `.nested_absmax` and
//!   `.nested_quant_map`, and the rest as JSON in `.quant_state.bitsandbytes__nf4`;
//! - 8 bits: the largest absolute value of each row in `NAME.SCB`, and `NAME.weight_format`, which is 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::mapped::Mapped;
use super::{Entry, WeightsError};
use crate::layers::{Quantization, Weight};
use crate::nf4::{Factors, Nf4};

const STATE: &str = ".quant_state.bitsandbytes__nf4";
const FP4: &str = ".quant_state.bitsandbytes__fp4";

/// Where the parts of a rounded matrix lie.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each matrix, and it stays in its map"
)]
pub(super) enum Rounded {
    Nf4 {
        size: [i64; 2],
        block: i64,
        packed: Entry,
        levels: Entry,
        factors: Entry,
        outer: Option<Outer>,
    },
    Int8 {
        size: [i64; 2],
        values: Entry,
        scales: Entry,
    },
}

/// The second level of factors.
#[derive(Debug)]
pub(super) struct Outer {
    scales: Entry,
    map: Entry,
    offset: f32,
    block: i64,
}

/// What bitsandbytes writes as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    quant_type: String,
    blocksize: i64,
    dtype: String,
    shape: [i64; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    nested_blocksize: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested_dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested_offset: Option<f64>,
}

/// Takes the parts of rounded matrices out of `entries`; what stays of each is `NAME.weight`, with the
/// matrix's own shape.
pub(super) fn gather(
    files: &[Mapped],
    entries: &mut BTreeMap<String, Entry>,
) -> Result<BTreeMap<String, Rounded>, WeightsError> {
    let mut gathered = BTreeMap::new();
    let names: Vec<String> = entries.keys().cloned().collect();
    for name in names {
        if let Some(weight) = name.strip_suffix(FP4) {
            let path = files[entries[&name].file].path().to_owned();
            let (tensor, dtype) = (weight.to_owned(), "FP4".to_owned());
            return Err(WeightsError::Type { path, tensor, dtype });
        }
        let found = if let Some(weight) = name.strip_suffix(STATE) {
            Some((weight.to_owned(), nf4(files, entries, weight)?))
        } else if let Some(layer) = name.strip_suffix(".SCB") {
            let weight = format!("{layer}.weight");
            entries.remove(&format!("{layer}.weight_format"));
            int8(entries, &weight, &name).map(|rounded| (weight, rounded))
        } else {
            None
        };
        let Some((weight, rounded)) = found else { continue };
        rounded.check(files, &weight)?;
        entries.insert(weight.clone(), rounded.stand_in());
        gathered.insert(weight, rounded);
    }
    Ok(gathered)
}

fn nf4(
    files: &[Mapped],
    entries: &mut BTreeMap<String, Entry>,
    weight: &str,
) -> Result<Rounded, WeightsError> {
    let mut take = |part: &str| {
        let name = format!("{weight}{part}");
        entries.remove(&name)
    };
    let (state, packed) = (take(STATE), take(""));
    let (factors, levels) = (take(".absmax"), take(".quant_map"));
    let nested = (take(".nested_absmax"), take(".nested_quant_map"));
    let (Some(state), Some(packed), Some(factors), Some(levels)) = (state, packed, factors, levels)
    else {
        return Err(fault(files, 0, weight, "a part of its 4-bit form is missing"));
    };
    let bytes = &files[state.file].bytes()[state.range.clone()];
    let state: State = serde_json::from_slice(bytes).map_err(|error| {
        fault(files, state.file, weight, &format!("its 4-bit form cannot be understood: {error}"))
    })?;
    let outer = match (nested, state.nested_blocksize, state.nested_offset) {
        ((Some(scales), Some(map)), Some(block), Some(offset)) => {
            Some(Outer { scales, map, offset: offset as f32, block })
        }
        _ => None,
    };
    let (size, block) = (state.shape, state.blocksize);
    Ok(Rounded::Nf4 { size, block, packed, levels, factors, outer })
}

fn int8(entries: &mut BTreeMap<String, Entry>, weight: &str, scales: &str) -> Option<Rounded> {
    let size = <[i64; 2]>::try_from(entries.get(weight)?.shape.clone()).ok()?;
    let (values, scales) = (entries.remove(weight)?, entries.remove(scales)?);
    Some(Rounded::Int8 { size, values, scales })
}

fn fault(files: &[Mapped], file: usize, weight: &str, reason: &str) -> WeightsError {
    WeightsError::Rounded {
        path: files[file].path().to_owned(),
        tensor: weight.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Rounded {
    pub(super) fn format(&self) -> Quantization {
        match self {
            Self::Nf4 { .. } => Quantization::Nf4,
            Self::Int8 { .. } => Quantization::Int8,
        }
    }

    /// The entry of the matrix as a whole.
    fn stand_in(&self) -> Entry {
        let (size, entry, dtype) = match self {
            Self::Nf4 { size, packed, .. } => (size, packed, "NF4"),
            Self::Int8 { size, values, .. } => (size, values, "I8"),
        };
        Entry { shape: size.to_vec(), stored: None, dtype: dtype.to_owned(), ..entry.clone() }
    }

    /// Every part with the bytes that it must have.
    fn parts(&self) -> Vec<(&Entry, i64)> {
        match self {
            Self::Int8 { size, values, scales } => {
                vec![(values, size[0] * size[1]), (scales, 4 * size[0])]
            }
            Self::Nf4 { size, block, packed, levels, factors, outer } => {
                let count = size[0] * size[1];
                let blocks = (count + block - 1) / block;
                let mut parts = vec![(packed, (count + 1) / 2), (levels, 64)];
                match outer {
                    None => parts.push((factors, 4 * blocks)),
                    Some(Outer { scales, map, block, .. }) => {
                        let outer = (blocks + block - 1) / block;
                        parts.extend([(factors, blocks), (scales, 4 * outer), (map, 4 * 256)]);
                    }
                }
                parts
            }
        }
    }

    fn check(&self, files: &[Mapped], weight: &str) -> Result<(), WeightsError> {
        let file = self.stand_in().file;
        if let Self::Nf4 { block, outer, .. } = self {
            let outer = outer.as_ref().map_or(2, |outer| outer.block);
            if *block < 2 || block % 2 == 1 || outer < 1 {
                return Err(fault(files, file, weight, "its blocks have no usable size"));
            }
        }
        match self.parts().iter().find(|(part, bytes)| part.range.len() as i64 != *bytes) {
            Some((part, bytes)) => {
                let found = part.range.len();
                let reason =
                    format!("a part of it has {found} bytes, and its shape asks for {bytes}");
                Err(fault(files, file, weight, &reason))
            }
            None => Ok(()),
        }
    }

    pub(super) fn load(
        &self,
        files: &[Mapped],
        weight: &str,
        device: Device,
    ) -> Result<Weight, WeightsError> {
        let torch = |source| WeightsError::Torch { tensor: weight.to_owned(), source };
        let part = |entry: &Entry, kind: Kind, size: &[i64]| {
            let file = &files[entry.file];
            let bytes = &file.bytes()[entry.range.clone()];
            let tensor = Tensor::f_from_data_size(bytes, size, kind).map_err(torch)?;
            file.drop_pages(entry.range.clone());
            if kind == Kind::Float && tensor.isfinite().all().int64_value(&[]) == 0 {
                return Err(fault(files, entry.file, weight, "one of its factors is not finite"));
            }
            tensor.f_to(device).map_err(torch)
        };
        let flat = |entry: &Entry, kind: Kind| {
            part(entry, kind, &[(entry.range.len() / kind.elt_size_in_bytes()) as i64])
        };
        Ok(match self {
            Self::Int8 { size, values, scales } => Weight::Int8 {
                values: part(values, Kind::Int8, size)?,
                scales: flat(scales, Kind::Float)?,
            },
            Self::Nf4 { size, block, packed, levels, factors, outer } => Weight::Nf4(Nf4 {
                size: *size,
                packed: flat(packed, Kind::Uint8)?,
                levels: flat(levels, Kind::Float)?,
                block: *block,
                factors: match outer {
                    None => Factors::Whole(flat(factors, Kind::Float)?),
                    Some(outer) => Factors::Rounded {
                        quants: flat(factors, Kind::Uint8)?,
                        scales: flat(&outer.scales, Kind::Float)?,
                        map: flat(&outer.map, Kind::Float)?,
                        offset: outer.offset,
                        outer: outer.block,
                    },
                },
            }),
        })
    }
}

/// The tensors that bitsandbytes reads a rounded matrix of the layer `name` from; empty for other matrices.
pub fn saved(name: &str, weight: &Weight) -> Vec<(String, Tensor)> {
    let named = |part: &str, tensor: &Tensor| (format!("{name}{part}"), tensor.shallow_clone());
    match weight {
        Weight::Frozen(_) | Weight::Trained(_) => Vec::new(),
        Weight::Int8 { values, scales } => vec![
            named(".weight", values),
            named(".SCB", scales),
            named(".weight_format", &Tensor::from(0_i64).to_kind(Kind::Uint8)),
        ],
        Weight::Nf4(matrix) => {
            let mut state = State {
                quant_type: "nf4".to_owned(),
                blocksize: matrix.block,
                dtype: "float32".to_owned(),
                shape: matrix.size,
                nested_blocksize: None,
                nested_dtype: None,
                nested_offset: None,
            };
            let mut tensors = vec![
                named(".weight", &matrix.packed.unsqueeze(1)),
                named(".weight.quant_map", &matrix.levels),
            ];
            match &matrix.factors {
                Factors::Whole(factors) => tensors.push(named(".weight.absmax", factors)),
                Factors::Rounded { quants, scales, map, offset, outer } => {
                    state.nested_blocksize = Some(*outer);
                    state.nested_dtype = Some("float32".to_owned());
                    state.nested_offset = Some(f64::from(*offset));
                    tensors.extend([
                        named(".weight.absmax", quants),
                        named(".weight.nested_absmax", scales),
                        named(".weight.nested_quant_map", map),
                    ]);
                }
            }
            let state = serde_json::to_vec(&state).expect("numbers and names are JSON");
            tensors.push(named(&format!(".weight{STATE}"), &Tensor::from_slice(&state)));
            tensors
        }
    }
}
