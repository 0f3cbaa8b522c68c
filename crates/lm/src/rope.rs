//! Rotary position embeddings (Su et al. 2021) and their scaled variants.
//!
//! The first half of a head's rotated features pairs with the second half, as in the checkpoints of
//! Hugging Face. Features beyond the rotated ones pass unchanged.

use tch::{Device, Kind, Tensor};

use crate::config::{ModelConfig, Rope, RopeScaling};
use crate::kernels;
use crate::packed::Packed;
use crate::tape::{Tape, Var};

/// How fast each pair of features turns, and how much longer or shorter the result is.
#[derive(Debug)]
pub struct RopeFrequencies {
    /// `[rotated / 2]`, fp32: radians per position.
    pub inverse: Tensor,
    /// Factor on cosine and sine: 1 but for YaRN and LongRoPE.
    pub attention_factor: f64,
}

/// The frequencies of a model, which LongRoPE chooses by the length of the sequence.
#[derive(Debug)]
pub struct Frequencies {
    short: RopeFrequencies,
    /// For sequences longer than this many tokens.
    long: Option<(i64, RopeFrequencies)>,
}

impl From<RopeFrequencies> for Frequencies {
    /// The same frequencies for every length.
    fn from(short: RopeFrequencies) -> Self {
        Self { short, long: None }
    }
}

impl Frequencies {
    pub fn new(rope: &Rope, config: &ModelConfig, device: Device) -> Self {
        let rotated = (config.head_dim as f64 * rope.partial_rotary_factor) as i64;
        let exponent =
            Tensor::arange_start_step(0, rotated, 2, (Kind::Float, device)) / rotated as f64;
        let wavelengths = Tensor::pow_scalar(rope.theta, &exponent);
        let plain = wavelengths.reciprocal();
        let of =
            |inverse: Tensor, attention_factor: f64| RopeFrequencies { inverse, attention_factor };
        let divided = |factors: &[f64], attention_factor: f64| {
            let factors = Tensor::from_slice(factors).to_kind(Kind::Float).to_device(device);
            of((factors * &wavelengths).reciprocal(), attention_factor)
        };
        let mut long = None;
        let short = match &rope.scaling {
            RopeScaling::None => of(plain, 1.0),
            RopeScaling::Linear { factor } => of(plain / *factor, 1.0),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let bounds = [*low_freq_factor, *high_freq_factor];
                of(llama3(&plain, *factor, bounds, *original_max_position_embeddings as f64), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
            } => {
                let turns = |beta: f64| {
                    let length = *original_max_position_embeddings as f64;
                    rotated as f64 * (length / (beta * std::f64::consts::TAU)).ln()
                        / (2.0 * rope.theta.ln())
                };
                let (low, high) = (turns(*beta_fast), turns(*beta_slow));
                let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let range = (low.max(0.0), high.min(rotated as f64 - 1.0));
                of(yarn(&plain, *factor, range), *attention_factor)
            }
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings,
                attention_factor,
            } => {
                long = Some((
                    *original_max_position_embeddings,
                    divided(long_factor, *attention_factor),
                ));
                divided(short_factor, *attention_factor)
            }
            RopeScaling::Factors { factors } => divided(factors, 1.0),
        };
        Self { short, long }
    }

    /// Tokens beyond which sequences turn otherwise.
    pub(crate) fn long_from(&self) -> Option<usize> {
        self.long.as_ref().map(|(limit, _)| *limit as usize)
    }

    /// The frequencies for a sequence of this many tokens.
    fn for_length(&self, tokens: i64) -> &RopeFrequencies {
        match &self.long {
            Some((limit, long)) if tokens > *limit => long,
            _ => &self.short,
        }
    }

    /// `[T, rotated / 2]`: the angles of each token in its own sequence.
    fn angles(&self, packed: &Packed) -> Tensor {
        let positions = packed.positions().to_kind(Kind::Float).unsqueeze(-1);
        if self.long.is_none() {
            return positions * &self.short.inverse;
        }
        let mut offset = 0;
        let parts: Vec<Tensor> = (packed.lengths().iter().zip(packed.reaches()))
            .map(|(length, reach)| {
                let part = positions.narrow(0, offset, *length);
                offset += length;
                part * &self.for_length(*reach).inverse
            })
            .collect();
        Tensor::cat(&parts, 0)
    }
}

/// Llama 3.1: waves longer than the original context shrink by `factor`, short ones stay, and those
/// between are blended (transformers, `modeling_rope_utils.py`).
fn llama3(inverse: &Tensor, factor: f64, [low, high]: [f64; 2], context: f64) -> Tensor {
    let turns = inverse * (context / std::f64::consts::TAU);
    let smooth = ((&turns - low) / (high - low)).clamp(0.0, 1.0);
    let shrunk = inverse / factor;
    &shrunk * (1.0 - &smooth) + inverse * smooth
}

/// YaRN (Peng et al. 2023): pairs below `low` keep their pace, pairs above `high` slow down by
/// `factor`, with a ramp between.
fn yarn(inverse: &Tensor, factor: f64, (low, high): (f64, f64)) -> Tensor {
    let high = if (high - low).abs() < 1e-9 { high + 0.001 } else { high };
    let pair = Tensor::arange(inverse.size()[0], (Kind::Float, inverse.device()));
    let ramp = ((pair - low) / (high - low)).clamp(0.0, 1.0);
    inverse / factor * &ramp + inverse * (1.0 - &ramp)
}

/// Cosines and sines of one batch's positions.
#[derive(Debug)]
pub struct RopeTable {
    /// `[T, 1, rotated / 2]`, in the number format of the activations, as in transformers.
    cos: Tensor,
    sin: Tensor,
    /// The same numbers as fp32 `[T, rotated / 2]`, for the kernel.
    cos_f32: Tensor,
    sin_f32: Tensor,
}

impl RopeTable {
    /// The table is in the number format of the activations, as in transformers.
    pub fn new(frequencies: &Frequencies, packed: &Packed, kind: Kind) -> Self {
        let angles = frequencies.angles(packed);
        let factor = frequencies.short.attention_factor;
        let table = |x: Tensor| (x * factor).to_kind(kind);
        let (cos, sin) = (table(angles.cos()), table(angles.sin()));
        let [cos_f32, sin_f32] = [&cos, &sin].map(|x| x.to_kind(Kind::Float).contiguous());
        Self { cos: cos.unsqueeze(1), sin: sin.unsqueeze(1), cos_f32, sin_f32 }
    }

    /// Turns `x [T, H·head_dim]` by the angles times `direction`, which is 1 or -1.
    fn turn(&self, x: &Tensor, head_dim: i64, direction: f64) -> Tensor {
        if kernels::supports(x) {
            return kernels::rope(x, &self.cos_f32, &self.sin_f32, head_dim, direction);
        }
        let half = self.cos.size()[2];
        let heads = x.reshape([x.size()[0], -1, head_dim]);
        let (a, b) = (heads.narrow(2, 0, half), heads.narrow(2, half, half));
        let sin = &self.sin * direction;
        let y = Tensor::empty_like(&heads);
        y.narrow(2, 0, half).copy_(&(&a * &self.cos - &b * &sin));
        y.narrow(2, half, half).copy_(&(&b * &self.cos + &a * &sin));
        let rest = head_dim - 2 * half;
        if rest > 0 {
            y.narrow(2, 2 * half, rest).copy_(&heads.narrow(2, 2 * half, rest));
        }
        y.view_as(x)
    }

    /// The same by operations that LibTorch can differentiate.
    fn turn_tracked(&self, x: &Tensor, head_dim: i64) -> Tensor {
        let half = self.cos.size()[2];
        let heads = x.reshape([x.size()[0], -1, head_dim]);
        let (a, b) = (heads.narrow(2, 0, half), heads.narrow(2, half, half));
        let rest = heads.narrow(2, 2 * half, head_dim - 2 * half);
        let turned = [&a * &self.cos - &b * &self.sin, &b * &self.cos + &a * &self.sin, rest];
        Tensor::cat(&turned, 2).view_as(x)
    }
}

impl<'m> Tape<'m> {
    /// Rotates the heads of `x [T, H·head_dim]`.
    pub fn rope(&self, x: &Var<'m>, table: &std::rc::Rc<RopeTable>, head_dim: i64) -> Var<'m> {
        if self.mode() == crate::tape::Mode::Autograd {
            return self.constant(table.turn_tracked(x.tensor(), head_dim));
        }
        let y = table.turn(x.tensor(), head_dim, 1.0);
        if !self.wants(&[x], false) {
            return self.constant(y);
        }
        let y = self.tracked(y);
        let (slot, input_slot, table) = (y.slot(), x.slot(), std::rc::Rc::clone(table));
        self.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            grads.add_owned(input_slot, table.turn(&dy, head_dim, -1.0));
        });
        y
    }
}
