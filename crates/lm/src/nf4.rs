//! Matrices in 4 bits: NF4 with double quantization (Dettmers et al. 2023), in bitsandbytes' layout.
//!
//! A block of 64 elements has one factor, its largest absolute value, and each element is one of 16 levels
//! times that factor. The factors, less their mean, are in turn 8-bit levels times a factor for each 256 of
//! them: 4.13 bits an element in all. Blocks follow the elements in a row, whatever the rows of the matrix.

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use crate::kernels;
use crate::nf4_kernels;

/// Elements of a block, and blocks of an outer block, where we choose.
pub const BLOCK: i64 = 64;
pub const OUTER: i64 = 256;

/// The levels: quantiles of a normal distribution, scaled to ±1 (bitsandbytes' table).
#[rustfmt::skip]
pub const LEVELS: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

/// Places that a value from -1 to 1 is rounded to before its 8-bit level is looked up, as bitsandbytes does.
const PLACES: usize = 65_536;

/// A matrix `[O, I]` in 4 bits.
#[derive(Debug)]
pub struct Nf4 {
    pub(crate) size: [i64; 2],
    /// `[O·I / 2]`, uint8, the first of two elements in the high bits.
    pub(crate) packed: Tensor,
    /// `[16]`, fp32.
    pub(crate) levels: Tensor,
    pub(crate) block: i64,
    pub(crate) factors: Factors,
}

/// The factor of each block.
#[derive(Debug)]
pub(crate) enum Factors {
    /// `[blocks]`, fp32.
    Whole(Tensor),
    /// `map[quants]·scales[block / outer] + offset`.
    Rounded {
        /// `[blocks]`, uint8.
        quants: Tensor,
        /// `[blocks / outer]`, fp32.
        scales: Tensor,
        /// `[256]`, fp32.
        map: Tensor,
        offset: f32,
        outer: i64,
    },
}

impl Nf4 {
    /// Rounds a matrix of fp32 or bf16.
    pub fn pack(matrix: &Tensor) -> Self {
        let device = matrix.device();
        let (matrix, size) = (matrix.to_device(Device::Cpu).contiguous(), matrix.size());
        let size = [size[0], size[1]];
        let levels = Tensor::from_slice(&LEVELS);
        let (packed, factors) = nf4_kernels::pack(&matrix, &levels, BLOCK);
        let offset = factors.mean(Kind::Float);
        let (quants, scales) = round_factors(&(factors - &offset));
        let factors = Factors::Rounded {
            quants: quants.to_device(device),
            scales: scales.to_device(device),
            map: dynamic_map().to_device(device),
            offset: offset.double_value(&[]) as f32,
            outer: OUTER,
        };
        let (packed, levels) = (packed.to_device(device), levels.to_device(device));
        Self { size, packed, levels, block: BLOCK, factors }
    }

    pub fn size(&self) -> [i64; 2] {
        self.size
    }

    /// The matrix in the number format `kind`.
    pub fn value(&self, kind: Kind) -> Tensor {
        let known = matches!(kind, Kind::Float | Kind::BFloat16);
        if known && self.packed.device() == Device::Cpu {
            return nf4_kernels::dense(self, kind);
        }
        self.composed().to_kind(kind)
    }

    /// `x·Wᵀ` of a few rows, without the whole matrix at any time. None where that has no kernel.
    pub(crate) fn product(&self, x: &Tensor) -> Option<Tensor> {
        (kernels::supports(x) && self.packed.device() == Device::Cpu)
            .then(|| nf4_kernels::product(self, x))
    }

    /// By LibTorch's operators, on any device, in fp32.
    pub fn composed(&self) -> Tensor {
        let high = self.packed.bitwise_right_shift_tensor_scalar(4);
        let low = self.packed.bitwise_and(15);
        let indices = Tensor::stack(&[high, low], 1).flatten(0, 1).to_kind(Kind::Int);
        let factors = self.composed_factors();
        let (count, blocks) = (self.size[0] * self.size[1], factors.size()[0]);
        let levels = self.levels.index_select(0, &indices).narrow(0, 0, count);
        let fill = blocks * self.block - count;
        let levels = levels.constant_pad_nd([0, fill]).view([blocks, self.block]);
        (levels * factors.unsqueeze(1)).view(-1).narrow(0, 0, count).view(self.size)
    }

    fn composed_factors(&self) -> Tensor {
        match &self.factors {
            Factors::Whole(factors) => factors.shallow_clone(),
            Factors::Rounded { quants, scales, map, offset, outer } => {
                let blocks = quants.size()[0];
                let outer = scales.repeat_interleave_self_int(*outer, 0, None).narrow(0, 0, blocks);
                map.index_select(0, &quants.to_kind(Kind::Int)) * outer + f64::from(*offset)
            }
        }
    }

    /// Bytes that the matrix takes in memory.
    pub fn bytes(&self) -> usize {
        let factors = match &self.factors {
            Factors::Whole(factors) => 4 * factors.numel(),
            Factors::Rounded { quants, scales, map, .. } => {
                quants.numel() + 4 * (scales.numel() + map.numel())
            }
        };
        self.packed.numel() + factors + 4 * self.levels.numel()
    }
}

/// Blocks' factors, less their mean, in 8 bits: `(quants, scales)`.
fn round_factors(factors: &Tensor) -> (Tensor, Tensor) {
    let values = Vec::<f32>::try_from(factors).expect("factors are fp32");
    let places = places();
    let (mut quants, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
    for block in values.chunks(OUTER as usize) {
        let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let factor = if largest == 0.0 { 0.0 } else { 1.0 / largest };
        quants.extend(block.iter().map(|value| {
            if largest == 0.0 {
                return 0;
            }
            let value = (value * factor).clamp(-1.0, 1.0);
            places[((value + 1.0) * 0.5).mul_add((PLACES - 1) as f32, 0.5) as usize]
        }));
        scales.push(largest);
    }
    (Tensor::from_slice(&quants), Tensor::from_slice(&scales))
}

/// The nearest 8-bit level of each place.
fn places() -> &'static [u8] {
    static PLACE: OnceLock<Vec<u8>> = OnceLock::new();
    PLACE.get_or_init(|| {
        let map = Vec::<f32>::try_from(dynamic_map()).expect("the map is fp32");
        let middles: Vec<f32> = map.windows(2).map(|pair| (pair[0] + pair[1]) * 0.5).collect();
        let mut level = 0;
        (0..PLACES)
            .map(|place| {
                let value = -1.0 + 2.0 * place as f32 / (PLACES - 1) as f32;
                while level < middles.len() && middles[level] < value {
                    level += 1;
                }
                level as u8
            })
            .collect()
    })
}

/// bitsandbytes' signed 8-bit levels: one of seven powers of ten, and a fraction that has the more bits the
/// larger the power is (Dettmers et al. 2022). By LibTorch's arithmetic, which is what made its bits.
pub(crate) fn dynamic_map() -> Tensor {
    let mut levels = vec![0.0, 1.0];
    for power in 0..7 {
        let steps = Tensor::linspace(0.1, 1.0, (1 << power) + 1, (Kind::Float, Device::Cpu));
        let count = steps.size()[0] - 1;
        let middles = (steps.narrow(0, 0, count) + steps.narrow(0, 1, count)) / 2.0;
        let middles = middles * 10_f64.powi(power - 6);
        let middles = Vec::<f32>::try_from(middles).expect("levels are fp32");
        levels.extend(middles.iter().flat_map(|level| [*level, -*level]));
    }
    levels.sort_by(f32::total_cmp);
    Tensor::from_slice(&levels)
}
