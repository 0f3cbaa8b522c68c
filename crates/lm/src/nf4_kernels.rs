//! The CPU kernels of `kernels/nf4.cpp`: matrices of 4 bits written out, multiplied, and made.

#![expect(
    unsafe_code,
    reason = "calls into C++ with the addresses of tensors, checked for kind and size here"
)]

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::{Device, Kind, Tensor};

use crate::kernels::supports;
use crate::nf4::{Factors, Nf4};

#[rustfmt::skip]
unsafe extern "C" {
    fn anneal_nf4_dense(kind: c_int, packed: *const c_void, scales: *const c_void, quants: *const c_void, map: *const c_void, offset: f32, block: i64, outer: i64, code: *const c_void, y: *mut c_void, n: i64);
    fn anneal_nf4_product(kind: c_int, packed: *const c_void, scales: *const c_void, quants: *const c_void, map: *const c_void, offset: f32, block: i64, outer: i64, code: *const c_void, x: *const c_void, x_stride: i64, y: *mut c_void, rows: i64, inputs: i64, outputs: i64);
    fn anneal_nf4_pack(kind: c_int, x: *const c_void, code: *const c_void, packed: *mut c_void, scales: *mut c_void, n: i64, block: i64);
}

/// The matrix in fp32 or bf16.
pub(crate) fn dense(matrix: &Nf4, format: Kind) -> Tensor {
    let parts = Parts::of(matrix);
    let y = Tensor::empty(matrix.size, (format, Device::Cpu));
    // SAFETY: `y` is dense with as many elements as the matrix, whose parts were checked.
    unsafe {
        anneal_nf4_dense(
            kind(&y),
            parts.packed,
            parts.scales,
            parts.quants,
            parts.map,
            parts.offset,
            matrix.block,
            parts.outer,
            parts.levels,
            y.data_ptr(),
            y.numel() as i64,
        );
    }
    y
}

/// `x·Wᵀ` of rows `x [rows, I]`.
pub(crate) fn product(matrix: &Nf4, x: &Tensor) -> Tensor {
    let parts = Parts::of(matrix);
    let (x, [outputs, inputs]) = (dense_rows(x), matrix.size);
    let rows = x.size()[0];
    assert_eq!(x.size(), [rows, inputs], "rows have an element for each column of the matrix");
    let y = Tensor::empty([rows, outputs], (x.kind(), x.device()));
    // SAFETY: `x` has rows of `inputs` elements, `y` is dense `[rows, outputs]`, and the parts of the matrix
    // were checked.
    unsafe {
        anneal_nf4_product(
            kind(&x),
            parts.packed,
            parts.scales,
            parts.quants,
            parts.map,
            parts.offset,
            matrix.block,
            parts.outer,
            parts.levels,
            x.data_ptr(),
            x.stride()[0],
            y.data_ptr(),
            rows,
            inputs,
            outputs,
        );
    }
    y
}

/// The elements of a dense `x` two to a byte, and the factor of each block.
pub(crate) fn pack(x: &Tensor, levels: &Tensor, block: i64) -> (Tensor, Tensor) {
    assert!(supports(x) && x.is_contiguous(), "a dense matrix in fp32 or bf16");
    assert!(levels.numel() == 16 && levels.kind() == Kind::Float && block % 2 == 0);
    let count = x.numel() as i64;
    let packed = Tensor::empty([count.div_euclid(2) + count % 2], (Kind::Uint8, Device::Cpu));
    let blocks = (count + block - 1) / block;
    let scales = Tensor::empty([blocks], (Kind::Float, Device::Cpu));
    // SAFETY: `x` is dense, and there is a byte for every two elements and a factor for every block.
    unsafe {
        anneal_nf4_pack(
            kind(x),
            x.data_ptr(),
            levels.data_ptr(),
            packed.data_ptr(),
            scales.data_ptr(),
            count,
            block,
        );
    }
    (packed, scales)
}

/// The addresses of a matrix's parts, each of which is as long as the kernels take it to be.
struct Parts {
    packed: *const c_void,
    levels: *const c_void,
    scales: *const c_void,
    quants: *const c_void,
    map: *const c_void,
    offset: f32,
    outer: i64,
}

impl Parts {
    fn of(matrix: &Nf4) -> Self {
        let count = matrix.size[0] * matrix.size[1];
        assert!(matrix.block > 0 && matrix.block % 2 == 0, "blocks are whole bytes");
        let blocks = (count + matrix.block - 1) / matrix.block;
        let packed = part(&matrix.packed, Kind::Uint8, (count + 1) / 2);
        let levels = part(&matrix.levels, Kind::Float, 16);
        match &matrix.factors {
            Factors::Whole(factors) => Self {
                packed,
                levels,
                scales: part(factors, Kind::Float, blocks),
                quants: ptr::null(),
                map: ptr::null(),
                offset: 0.0,
                outer: 1,
            },
            Factors::Rounded { quants, scales, map, offset, outer } => {
                assert!(*outer > 0, "outer blocks hold blocks");
                Self {
                    packed,
                    levels,
                    scales: part(scales, Kind::Float, (blocks + outer - 1) / outer),
                    quants: part(quants, Kind::Uint8, blocks),
                    map: part(map, Kind::Float, 256),
                    offset: *offset,
                    outer: *outer,
                }
            }
        }
    }
}

fn part(tensor: &Tensor, kind: Kind, count: i64) -> *const c_void {
    assert_eq!((tensor.kind(), tensor.numel() as i64), (kind, count), "a part of a matrix");
    assert!(tensor.device() == Device::Cpu && tensor.is_contiguous());
    tensor.data_ptr().cast_const()
}

fn dense_rows(x: &Tensor) -> Tensor {
    if x.stride().last() == Some(&1) { x.shallow_clone() } else { x.contiguous() }
}

fn kind(x: &Tensor) -> c_int {
    assert!(supports(x), "the caller asked `supports`");
    c_int::from(x.kind() == Kind::BFloat16)
}
