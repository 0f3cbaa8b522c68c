//! Matrices rounded to int8: near to what they were, and multiplied as what they are.
#![expect(clippy::unwrap_used, reason = "tests")]

use lm::layers::{Quantization, Weight};
use tch::{Device, Kind, Tensor};

fn random(size: [i64; 2]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

/// Size of the difference, as a share of the size of the value.
fn off(value: &Tensor, other: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.to_kind(Kind::Float).norm().double_value(&[]);
    norm(&(value.to_kind(Kind::Float) - other.to_kind(Kind::Float))) / norm(value)
}

#[test]
fn rows_keep_their_largest_value_and_lose_little() {
    tch::manual_seed(1);
    // Rows of very different size, and one of zeros.
    let factors = Tensor::from_slice(&[1.0_f32, 1e-6, 1e6, 0.0, 3.0]).unsqueeze(1);
    let whole = random([5, 97]) * factors;
    let mut weight = Weight::Frozen(whole.copy());
    weight.quantize(Quantization::Int8);
    let rounded = weight.value(Kind::Float);
    for row in 0..5 {
        let (before, after) = (whole.get(row), rounded.get(row));
        let largest = |x: &Tensor| x.abs().max().double_value(&[]);
        assert!((largest(&before) - largest(&after)).abs() <= 1e-5 * largest(&before));
        if row != 3 {
            assert!(off(&before, &after) < 0.01, "row {row}: {}", off(&before, &after));
        }
    }
}

#[test]
fn few_and_many_rows_are_multiplied_by_the_rounded_matrix() {
    tch::manual_seed(2);
    for (outputs, inputs) in [(64, 48), (37, 131), (3, 5)] {
        let mut weight = Weight::Frozen(random([outputs, inputs]));
        weight.quantize(Quantization::Int8);
        let dense = weight.value(Kind::Float);
        let bias = Tensor::randn([outputs], (Kind::Float, Device::Cpu));
        for rows in [1, 2, 7, 64, 65, 100] {
            let x = random([rows, inputs]);
            let expected = x.matmul(&dense.tr()) + &bias;
            let ours = weight.product(&x, Some(bias.shallow_clone()));
            assert!(off(&expected, &ours) < 1e-5, "{rows} rows of {inputs}");
            let low =
                weight.product(&x.to_kind(Kind::BFloat16), Some(bias.to_kind(Kind::BFloat16)));
            assert_eq!(low.kind(), Kind::BFloat16);
            assert!(off(&expected, &low) < 0.01, "{rows} rows of {inputs} in bf16");
        }
    }
}

#[test]
fn a_part_of_a_wider_matrix_can_be_multiplied() {
    let mut weight = Weight::Frozen(random([8, 16]));
    weight.quantize(Quantization::Int8);
    let wide = random([3, 40]);
    let part = wide.narrow(1, 10, 16);
    let whole = part.contiguous();
    assert_eq!(
        Vec::<f32>::try_from(weight.product(&part, None).flatten(0, 1)).unwrap(),
        Vec::<f32>::try_from(weight.product(&whole, None).flatten(0, 1)).unwrap()
    );
}
