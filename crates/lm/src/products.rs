//! Matrix products, and what they are made in where the processor does not multiply bf16.
//!
//! LibTorch's CPU products of bf16 are those of oneDNN, which needs AVX-512; elsewhere it has plain loops,
//! many times slower than its products of fp32. There both sides are widened to fp32, which is
//! exact, multiplied, and the result is rounded: the numbers that a processor with bf16 would give, but for
//! the order of the sums, at the speed of fp32. Weights and activations are kept in bf16 all the same.

use tch::{Device, Kind, Tensor};

/// Up to so many rows LibTorch's loops are as fast: they read the matrix once, at half the width.
const FEW_ROWS: i64 = 4;

/// Whether this processor multiplies bf16 (AVX-512 BF16, which every processor with AMX has).
pub fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The number format that a product with `x` is made in.
pub(crate) fn kind_of(x: &Tensor) -> Kind {
    let slow = x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !multiplies_bf16();
    if slow { Kind::Float } else { x.kind() }
}

/// `a·b`, in the number format of `a [T, I]`.
pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    let wide = kind_of(a);
    if wide == a.kind() || a.size()[0] <= FEW_ROWS {
        return a.matmul(b);
    }
    a.to_kind(wide).matmul(&b.to_kind(wide)).to_kind(a.kind())
}

/// `x·Wᵀ + b` of `x [T, I]` and `W [O, I]`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let wide = kind_of(x);
    if wide == x.kind() || x.size()[0] <= FEW_ROWS {
        return x.linear(weight, bias);
    }
    let bias = bias.map(|bias| bias.to_kind(wide));
    x.to_kind(wide).linear(&weight.to_kind(wide), bias).to_kind(x.kind())
}

/// `sum + a·b`, in the memory of `sum`.
pub(crate) fn add_product(mut sum: Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    let wide = kind_of(a);
    if wide == a.kind() || a.size()[0] <= FEW_ROWS {
        sum.addmm_(a, b)
    } else {
        sum.g_add_(&a.to_kind(wide).matmul(&b.to_kind(wide)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On any processor the three agree with products in fp64 as far as bf16 goes.
    #[test]
    fn products_in_bf16_are_those_of_fp64_rounded() {
        tch::manual_seed(3);
        for rows in [1, 5, 70] {
            let random = |size: [i64; 2]| {
                Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16)
            };
            let (x, weight, sum) = (random([rows, 96]), random([40, 96]), random([rows, 40]));
            let bias = random([1, 40]).view([40]);
            let exact = x.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
            let close = |found: &Tensor, exact: &Tensor| {
                let off = (found.to_kind(Kind::Double) - exact).abs().max().double_value(&[]);
                // Half a step of bf16 at the largest values, and a sum that was rounded before.
                assert!(off <= exact.abs().max().double_value(&[]) / 128.0, "{rows} rows: {off}");
            };
            close(&matmul(&x, &weight.tr()), &exact);
            close(&linear(&x, &weight, Some(&bias)), &(&exact + bias.to_kind(Kind::Double)));
            let into = add_product(sum.copy(), &x, &weight.tr());
            close(&into, &(&exact + sum.to_kind(Kind::Double)));
            assert_eq!(into.kind(), Kind::BFloat16, "the sum keeps its number format");
        }
    }
}
