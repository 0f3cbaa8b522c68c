//! Matrices in 4 bits, whatever their shape: near to what they were, the same by the kernels and by LibTorch's
//! operators, and multiplied as what they are.
#![expect(clippy::unwrap_used, reason = "tests")]

use lm::layers::Weight;
use lm::nf4::Nf4;
use tch::{Device, Kind, Tensor};

/// Rows that are whole blocks, rows that are not, an odd number of elements, less than a block.
const SHAPES: [[i64; 2]; 5] = [[64, 192], [300, 96], [37, 131], [3, 5], [1, 1]];

fn random(size: [i64; 2]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

/// Size of the difference, as a share of the size of the value.
fn off(value: &Tensor, other: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.to_kind(Kind::Float).norm().double_value(&[]);
    norm(&(value.to_kind(Kind::Float) - other.to_kind(Kind::Float))) / norm(value)
}

fn values(x: &Tensor) -> Vec<u32> {
    let values = Vec::<f32>::try_from(x.flatten(0, -1)).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn rounding_loses_little_and_kernels_agree_with_operators() {
    tch::manual_seed(1);
    for size in SHAPES {
        let whole = random(size);
        let matrix = Nf4::pack(&whole);
        assert_eq!(matrix.size(), size);
        let rounded = matrix.value(Kind::Float);
        assert_eq!(values(&rounded), values(&matrix.composed()), "{size:?}");
        assert!(off(&whole, &rounded) < 0.12, "{size:?}: {}", off(&whole, &rounded));
        let low = matrix.value(Kind::BFloat16).to_kind(Kind::Float);
        let expected = rounded.to_kind(Kind::BFloat16).to_kind(Kind::Float);
        assert_eq!(values(&low), values(&expected), "{size:?} in bf16");
    }
}

#[test]
fn few_and_many_rows_are_multiplied_by_the_rounded_matrix() {
    tch::manual_seed(2);
    for size in SHAPES {
        let matrix = Nf4::pack(&random(size));
        let dense = matrix.value(Kind::Float);
        let weight = Weight::Nf4(matrix);
        for rows in [1, 2, 7, 64, 65] {
            let x = random([rows, size[1]]);
            let expected = x.matmul(&dense.tr());
            let ours = weight.product(&x, None);
            assert!(off(&expected, &ours) < 1e-5, "{rows} rows by {size:?}");
            let sum = random([rows, size[0]]);
            let onto = weight.product_onto(&sum, &x);
            assert!(off(&(sum + expected), &onto) < 1e-5, "{rows} rows by {size:?}, added");
        }
    }
}

#[test]
fn a_matrix_of_zeros_stays_one() {
    let zeros = Tensor::zeros([8, 64], (Kind::Float, Device::Cpu));
    assert!(Nf4::pack(&zeros).value(Kind::Float).equal(&zeros));
}
