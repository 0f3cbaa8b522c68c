//! How tensors are stored, and the arithmetic that turns stored blocks into fp32 values.
//!
//! The order of the operations is that of `gguf-py`'s `dequantize`, which transformers uses, so that every
//! value has the same bits. Block layouts: `ggml-common.h` of <https://github.com/ggml-org/ggml>.

use std::fmt;

/// How one tensor's elements lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    F64,
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Names of GGML's types by their number, for messages about those that are not supported.
const GGML_NAMES: [&str; 40] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
];

pub(crate) fn ggml_name(kind: u32) -> String {
    GGML_NAMES.get(kind as usize).map_or_else(|| format!("number {kind}"), |&name| name.to_owned())
}

impl Stored {
    /// The types that are read from GGUF files.
    pub const GGUF_NAMES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K";

    pub(crate) fn from_ggml(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    pub(crate) fn from_safetensors(dtype: &str) -> Option<Self> {
        Some(match dtype {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            _ => return None,
        })
    }

    /// Elements and bytes of one block; plain types have blocks of one element.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F64 => (1, 8),
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Whether values are computed from blocks; the other types are values as they are.
    pub(crate) const fn is_quantized(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a tensor of this shape; `None` where rows do not hold whole blocks, or on overflow.
    pub(crate) fn bytes_of(self, shape: &[i64]) -> Option<u64> {
        let (elements, bytes) = self.block();
        let row = shape.last().copied().unwrap_or(1);
        if row % elements as i64 != 0 {
            return None;
        }
        let count = shape.iter().try_fold(1_i64, |product, &size| product.checked_mul(size))?;
        u64::try_from(count).ok()?.checked_div(elements as u64)?.checked_mul(bytes as u64)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        })
    }
}

/// Decodes whole blocks of a quantized type: `out` has as many elements as `bytes` has blocks hold.
///
/// Plain types are converted by LibTorch instead and leave `out` untouched.
pub(crate) fn dequantize(stored: Stored, bytes: &[u8], out: &mut [f32]) {
    let (elements, length) = stored.block();
    let decode: fn(&[u8], &mut [f32]) = match stored {
        Stored::F64 | Stored::F32 | Stored::F16 | Stored::Bf16 => return,
        Stored::Q4_0 => q4_0,
        Stored::Q4_1 => q4_1,
        Stored::Q5_0 => q5_0,
        Stored::Q8_0 => q8_0,
        Stored::Q4K => q4_k,
        Stored::Q5K => q5_k,
        Stored::Q6K => q6_k,
    };
    for (block, values) in bytes.chunks_exact(length).zip(out.chunks_exact_mut(elements)) {
        decode(block, values);
    }
}

/// IEEE half precision, little-endian, at `at`.
pub(crate) fn half(block: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let sign = (bits & 0x8000) << 16;
    let mantissa = bits & 0x3ff;
    match (bits >> 10) & 0x1f {
        // Zero and subnormal: the mantissa counts in units of 2^-24, which fp32 holds exactly.
        0 => f32::from_bits(sign | (mantissa as f32 * 2.0_f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | (mantissa << 13)),
        exponent => f32::from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13)),
    }
}

/// Halves of a block: the low nibbles are its first 16 values, the high ones its last 16.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[2..18].iter().zip(low).zip(high) {
        *low = scale * f32::from((byte & 15) as i8 - 8);
        *high = scale * f32::from((byte >> 4) as i8 - 8);
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[4..20].iter().zip(low).zip(high) {
        *low = scale * f32::from(byte & 15) + minimum;
        *high = scale * f32::from(byte >> 4) + minimum;
    }
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = out.split_at_mut(16);
    for (index, ((&byte, low), high)) in block[6..22].iter().zip(low).zip(high).enumerate() {
        let low_bit = ((fifth >> index) & 1) as u8;
        let high_bit = ((fifth >> (index + 16)) & 1) as u8;
        *low = scale * f32::from(((byte & 15) | (low_bit << 4)) as i8 - 16);
        *high = scale * f32::from(((byte >> 4) | (high_bit << 4)) as i8 - 16);
    }
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    for (&byte, value) in block[2..34].iter().zip(out) {
        *value = f32::from(byte as i8) * scale;
    }
}

/// The six-bit scale and minimum of sub-block `index` (0 to 7), packed in twelve bytes.
fn scale_and_minimum(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let rest = packed[index + 4];
        let scale = (rest & 15) | ((packed[index - 4] >> 6) << 4);
        let minimum = (rest >> 4) | ((packed[index] >> 6) << 4);
        (scale, minimum)
    };
    (f32::from(scale), f32::from(minimum))
}

/// Eight sub-blocks of 32; two of them share 32 bytes, as low and high nibbles.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (packed, nibbles) = (&block[4..16], &block[16..144]);
    for (index, values) in out.chunks_exact_mut(32).enumerate() {
        let (sub_scale, sub_minimum) = scale_and_minimum(packed, index);
        let (step, low) = (scale * sub_scale, minimum * sub_minimum);
        let shift = 4 * (index % 2);
        let bytes = &nibbles[32 * (index / 2)..32 * (index / 2) + 32];
        for (&byte, value) in bytes.iter().zip(values) {
            *value = step * f32::from((byte >> shift) & 15) - low;
        }
    }
}

/// As [`q4_k`], with a fifth bit: bit `index` of the 32 bytes before the nibbles.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (packed, fifth, nibbles) = (&block[4..16], &block[16..48], &block[48..176]);
    for (index, values) in out.chunks_exact_mut(32).enumerate() {
        let (sub_scale, sub_minimum) = scale_and_minimum(packed, index);
        let (step, low) = (scale * sub_scale, minimum * sub_minimum);
        let shift = 4 * (index % 2);
        let bytes = &nibbles[32 * (index / 2)..32 * (index / 2) + 32];
        for ((&byte, &high), value) in bytes.iter().zip(fifth).zip(values) {
            let level = ((byte >> shift) & 15) | (((high >> index) & 1) << 4);
            *value = step * f32::from(level) - low;
        }
    }
}

/// Two halves of 128 values; a scale for every 16 of them.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half(block, 208);
    for (index, values) in out.chunks_exact_mut(32).enumerate() {
        let (side, part) = (index / 4, index % 4);
        let lows = &low[64 * side + 32 * (part % 2)..][..32];
        let highs = &high[32 * side..][..32];
        let (low_shift, high_shift) = (4 * (part / 2), 2 * part);
        for (at, value) in values.iter_mut().enumerate() {
            let step = scale * f32::from(scales[2 * index + at / 16] as i8);
            let bits = ((lows[at] >> low_shift) & 15) | (((highs[at] >> high_shift) & 3) << 4);
            *value = step * f32::from(bits as i8 - 32);
        }
    }
}
