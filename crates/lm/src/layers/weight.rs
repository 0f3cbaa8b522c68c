//! A tensor of the model, as it was loaded, rounded, or trained: layers ask for its value or for a product
//! with it, and need not know which it is.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::kernels;
use crate::nf4::Nf4;
use crate::param::Param;
use crate::products;
use crate::serve_kernels;

/// Up to so many rows are multiplied with rounded weights as they are; for more, the weights are written out.
const FEW_ROWS: i64 = 64;

/// What a row's largest value is multiplied by for a step of its int8 values: a 127th, as bitsandbytes has it.
const INT8_STEP: f64 = 0.007_874_015_718_698_502;

/// How frozen matrices are held, where they are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// 4 bits, with a factor for each block of 64.
    Nf4,
    /// 8 bits, with a factor for each row.
    Int8,
}

/// A tensor of the model: frozen as it was loaded, frozen and rounded, or trained.
#[derive(Debug)]
pub enum Weight {
    Frozen(Tensor),
    /// A matrix of int8 `[O, I]`, and the largest absolute value of each row in fp32: 127 stands for it.
    Int8 {
        values: Tensor,
        scales: Tensor,
    },
    /// A matrix of 4 bits.
    Nf4(Nf4),
    Trained(Rc<Param>),
}

impl Weight {
    /// The value in the number format of the activations.
    pub fn value(&self, kind: Kind) -> Tensor {
        match self {
            Self::Frozen(tensor) => tensor.to_kind(kind),
            Self::Int8 { values, scales } if values.device() == Device::Cpu => {
                serve_kernels::int8_dense(values, scales, kind)
            }
            Self::Int8 { values, scales } => {
                (values.to_kind(Kind::Float) * scales.unsqueeze(1) * INT8_STEP).to_kind(kind)
            }
            Self::Nf4(matrix) => matrix.value(kind),
            Self::Trained(param) => param.cast(kind),
        }
    }

    /// `x·Wᵀ + b`.
    pub fn product(&self, x: &Tensor, bias: Option<Tensor>) -> Tensor {
        match self.product_of_few(x) {
            Some(y) => bias.map_or_else(|| y.shallow_clone(), |bias| &y + bias),
            None => products::linear(x, &self.value(x.kind()), bias.as_ref()),
        }
    }

    /// `sum + x·Wᵀ`.
    pub fn product_onto(&self, sum: &Tensor, x: &Tensor) -> Tensor {
        match self.product_of_few(x) {
            Some(y) => sum + y,
            None => products::add_product(sum.copy(), x, &self.value(x.kind()).tr()),
        }
    }

    /// `x·Wᵀ` of a few rows with a matrix that is rounded.
    fn product_of_few(&self, x: &Tensor) -> Option<Tensor> {
        if x.size()[0] > FEW_ROWS || !kernels::supports(x) {
            return None;
        }
        match self {
            Self::Int8 { values, scales } => Some(serve_kernels::int8_product(x, values, scales)),
            Self::Nf4(matrix) => matrix.product(x),
            Self::Frozen(_) | Self::Trained(_) => None,
        }
    }

    /// Rounds a frozen matrix, each row or block with a factor of its own so that its largest value is kept.
    pub fn quantize(&mut self, format: Quantization) {
        let Self::Frozen(tensor) = self else { return };
        *self = match format {
            Quantization::Nf4 => Self::Nf4(Nf4::pack(tensor)),
            Quantization::Int8 => {
                let whole = tensor.to_kind(Kind::Float);
                let largest = whole.abs().amax([1], false);
                let smallest = f64::from(f32::MIN_POSITIVE);
                let steps: Tensor = 127.0 / largest.clamp_min(smallest);
                let values = whole * steps.unsqueeze(1);
                Self::Int8 { values: values.round().to_kind(Kind::Int8), scales: largest }
            }
        };
    }

    pub fn trained(&self) -> Option<&Rc<Param>> {
        match self {
            Self::Frozen(_) | Self::Int8 { .. } | Self::Nf4(_) => None,
            Self::Trained(param) => Some(param),
        }
    }

    pub fn size(&self) -> Vec<i64> {
        match self {
            Self::Frozen(tensor) => tensor.size(),
            Self::Int8 { values, .. } => values.size(),
            Self::Nf4(matrix) => matrix.size().to_vec(),
            Self::Trained(param) => param.value().size(),
        }
    }

    /// Makes a frozen tensor trained, under the name it is saved by.
    pub fn train(&mut self, name: &str) {
        if self.trained().is_none() {
            *self = Self::Trained(Rc::new(Param::new(name, &self.value(Kind::Float))));
        }
    }

    /// Bytes of a frozen tensor in memory.
    pub fn frozen_bytes(&self) -> usize {
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        match self {
            Self::Frozen(tensor) => bytes(tensor),
            Self::Int8 { values, scales } => bytes(values) + bytes(scales),
            Self::Nf4(matrix) => matrix.bytes(),
            Self::Trained(_) => 0,
        }
    }

    /// Makes a trained tensor frozen again, with the value it has now.
    pub fn freeze(&mut self, kind: Kind) {
        if let Self::Trained(param) = self {
            *self = Self::Frozen(param.cast(kind));
        }
    }
}
