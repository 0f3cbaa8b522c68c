//! The CPU kernels of `kernels/kernels.cpp`: element-wise steps in one pass over memory.
//!
//! Everything here is for dense tensors on the CPU in fp32 or bf16, which [`supports`] tells; for others
//! the layers compose LibTorch's operators. Sums and functions are fp32 inside.

#![expect(
    unsafe_code,
    reason = "calls into C++ with the addresses of tensors, checked for kind and size here"
)]

use std::ffi::{c_int, c_void};

use tch::{Device, Kind, Tensor};

use crate::config::Activation;

#[rustfmt::skip]
unsafe extern "C" {
    fn anneal_rms_norm(kind: c_int, x: *const c_void, w: *const c_void, y: *mut c_void, rstd: *mut c_void, rows: i64, n: i64, eps: f32, offset: f32, known: c_int);
    fn anneal_rms_norm_backward(kind: c_int, dy: *const c_void, x: *const c_void, w: *const c_void, rstd: *const c_void, dx: *mut c_void, rows: i64, n: i64, offset: f32);
    fn anneal_gated(kind: c_int, gelu: c_int, gate: *const c_void, up: *const c_void, y: *mut c_void, count: i64);
    fn anneal_gated_backward(kind: c_int, gelu: c_int, dy: *const c_void, gate: *const c_void, up: *const c_void, dgate: *mut c_void, dup: *mut c_void, count: i64);
    fn anneal_rope(kind: c_int, x: *const c_void, stride: i64, cos: *const c_void, sin: *const c_void, y: *mut c_void, rows: i64, heads: i64, dim: i64, half: i64, sign: f32);
    fn anneal_cross_entropy(kind: c_int, logits: *mut c_void, targets: *const c_void, weights: *const c_void, scale: f32, losses: *mut c_void, correct: *mut c_void, rows: i64, n: i64, wanted: c_int);
    fn anneal_gather_heads(kind: c_int, x: *const c_void, stride: i64, starts: *const i64, lengths: *const i64, y: *mut c_void, n: i64, length: i64, heads: i64, dim: i64, times: i64);
    fn anneal_scatter_heads(kind: c_int, x: *const c_void, starts: *const i64, lengths: *const i64, y: *mut c_void, n: i64, length: i64, heads: i64, dim: i64, times: i64);
}

/// Whether the kernels can take this tensor, which LibTorch's autograd must not be following.
pub(crate) fn supports(x: &Tensor) -> bool {
    let known = matches!(x.kind(), Kind::Float | Kind::BFloat16);
    x.device() == Device::Cpu && known && !x.requires_grad()
}

/// `x [rows, n]` normalised and scaled, and `1 / rms` of each row, fp32.
pub(crate) fn rms_norm(x: &Tensor, w: &Tensor, eps: f64, offset: f64) -> (Tensor, Tensor) {
    let rstd = Tensor::empty([x.size()[0], 1], (Kind::Float, Device::Cpu));
    (rms(x, w, &rstd, eps, offset, false), rstd)
}

/// The same again, with `1 / rms` known.
pub(crate) fn rms_norm_again(x: &Tensor, w: &Tensor, rstd: &Tensor, offset: f64) -> Tensor {
    rms(x, w, rstd, 0.0, offset, true)
}

fn rms(x: &Tensor, w: &Tensor, rstd: &Tensor, eps: f64, offset: f64, known: bool) -> Tensor {
    let (x, w, [rows, n]) = (dense(x), like(x, w), matrix(x));
    assert_eq!(w.numel() as i64, n, "one weight for each feature");
    let y = Tensor::empty_like(&x);
    // SAFETY: `x` and `y` are dense `[rows, n]`, `w` is dense `[n]`, `rstd` is dense `[rows, 1]`.
    unsafe {
        anneal_rms_norm(
            kind(&x),
            at(&x),
            at(&w),
            at(&y),
            at(rstd),
            rows,
            n,
            eps as f32,
            offset as f32,
            known.into(),
        );
    }
    y
}

/// Gradient of the input of [`rms_norm`].
pub(crate) fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    w: &Tensor,
    rstd: &Tensor,
    offset: f64,
) -> Tensor {
    let (dy, x, w, [rows, n]) = (like(x, dy), dense(x), like(x, w), matrix(x));
    assert_eq!(
        (dy.numel(), w.numel() as i64),
        (x.numel(), n),
        "gradients have the shape of values"
    );
    let dx = Tensor::empty_like(&x);
    // SAFETY: `dy`, `x` and `dx` are dense `[rows, n]`, `w` is dense `[n]`, `rstd` is dense `[rows, 1]`.
    unsafe {
        anneal_rms_norm_backward(
            kind(&x),
            at(&dy),
            at(&x),
            at(&w),
            at(rstd),
            at(&dx),
            rows,
            n,
            offset as f32,
        );
    }
    dx
}

/// `activation(gate) · up`.
pub(crate) fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Tensor {
    let (gate, up) = (dense(gate), like(gate, up));
    assert_eq!(gate.numel(), up.numel(), "gate and up have one shape");
    let y = Tensor::empty_like(&gate);
    // SAFETY: all three are dense, of one kind and one number of elements.
    unsafe {
        anneal_gated(
            kind(&gate),
            gelu(activation),
            at(&gate),
            at(&up),
            at(&y),
            gate.numel() as i64,
        );
    }
    y
}

/// Gradients of gate and up.
pub(crate) fn gated_backward(
    activation: Activation,
    dy: &Tensor,
    gate: &Tensor,
    up: &Tensor,
) -> (Tensor, Tensor) {
    let (dy, gate, up) = (like(gate, dy), dense(gate), like(gate, up));
    assert_eq!(
        (dy.numel(), up.numel()),
        (gate.numel(), gate.numel()),
        "gradients have the shape of values"
    );
    let (dgate, dup) = (Tensor::empty_like(&gate), Tensor::empty_like(&gate));
    // SAFETY: all five are dense, of one kind and one number of elements.
    unsafe {
        anneal_gated_backward(
            kind(&gate),
            gelu(activation),
            at(&dy),
            at(&gate),
            at(&up),
            at(&dgate),
            at(&dup),
            gate.numel() as i64,
        );
    }
    (dgate, dup)
}

/// Rotates the heads of `x [T, H·dim]` by `cos` and `sin`, fp32 `[T, half]`, the sine times `direction`.
pub(crate) fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, dim: i64, direction: f64) -> Tensor {
    let (x, [rows, width], half) = (dense_rows(x), matrix(x), cos.size()[1]);
    assert_eq!(cos.size(), [rows, half], "an angle for each token and pair");
    assert!(2 * half <= dim && width % dim == 0, "the rotated features are part of a head");
    let y = Tensor::empty([rows, width], (x.kind(), x.device()));
    // SAFETY: `x` has rows of `width` elements `stride(0)` apart, `y` is dense, the tables are dense `[rows, half]`.
    unsafe {
        anneal_rope(
            kind(&x),
            at(&x),
            x.stride()[0],
            at(cos),
            at(sin),
            at(&y),
            rows,
            width / dim,
            dim,
            half,
            direction as f32,
        );
    }
    y
}

/// Cross-entropy of `logits [rows, V]`, over which the gradient is written where `wanted`.
///
/// Returns the weighted sum, not scaled, and the number of rows whose target is the most likely token.
pub(crate) fn cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    scale: f64,
    wanted: bool,
) -> (Tensor, Tensor) {
    let [rows, n] = matrix(logits);
    assert!(logits.is_contiguous() && targets.is_contiguous(), "logits were made for this call");
    assert_eq!(targets.numel() as i64, rows, "one target for each row");
    let (low, high) = (targets.min().int64_value(&[]), targets.max().int64_value(&[]));
    assert!(low >= 0 && high < n, "targets are tokens of the vocabulary");
    let losses = Tensor::empty([rows], (Kind::Float, Device::Cpu));
    let correct = Tensor::empty([rows], (Kind::Int64, Device::Cpu));
    let weights = weights.map(|w| w.to_kind(Kind::Float).contiguous());
    let weights_at = weights.as_ref().map_or(std::ptr::null_mut(), at);
    // SAFETY: `logits` is dense `[rows, n]`, the others are dense `[rows]` of the kinds the kernel names, and
    // every target is below `n`.
    unsafe {
        anneal_cross_entropy(
            kind(logits),
            at(logits),
            at(targets),
            weights_at,
            scale as f32,
            at(&losses),
            at(&correct),
            rows,
            n,
            wanted.into(),
        );
    }
    (losses.sum(Kind::Double).to_kind(Kind::Float), correct.sum(Kind::Int64))
}

/// Where sequences lie in a `[T, …]` tensor, and the rows that each is given in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// First row of each sequence.
    pub(crate) starts: &'a [i64],
    /// Rows of each sequence, at most `length`.
    pub(crate) lengths: &'a [i64],
    pub(crate) length: i64,
}

impl Rows<'_> {
    /// The kernels rely on what is checked here.
    fn check(self, tokens: i64) -> i64 {
        assert_eq!(self.starts.len(), self.lengths.len(), "a length for each sequence");
        let inside = |(start, length): (&i64, &i64)| {
            *start >= 0 && (0..=self.length).contains(length) && start + length <= tokens
        };
        assert!(self.starts.iter().zip(self.lengths).all(inside), "sequences lie in the tensor");
        self.starts.len() as i64
    }
}

/// Sequences of `x [T, G·dim]` as a batch `[n·length, G·times·dim]`, each filled up with zeros and each
/// head `times` times side by side.
pub(crate) fn gather_heads(x: &Tensor, rows: Rows<'_>, dim: i64, times: i64) -> Tensor {
    let (x, [tokens, width], n) = (dense_rows(x), matrix(x), rows.check(x.size()[0]));
    assert_eq!((width % dim, tokens), (0, x.size()[0]), "rows are whole heads");
    let y = Tensor::empty([n * rows.length, width * times], (x.kind(), x.device()));
    let (starts, lengths) = (rows.starts.as_ptr(), rows.lengths.as_ptr());
    let (kind, stride, heads) = (kind(&x), x.stride()[0], width / dim);
    // SAFETY: `x` has `T` rows of `width` elements `stride` apart, in which every sequence lies; `y` is dense
    // `[n·length, width·times]`.
    unsafe {
        anneal_gather_heads(
            kind,
            at(&x),
            stride,
            starts,
            lengths,
            at(&y),
            n,
            rows.length,
            heads,
            dim,
            times,
        );
    }
    y
}

/// The way back: writes the sequences' rows of `x [n·length, G·times·dim]` into `y [T, G·dim]`, the copies of
/// a head added up.
pub(crate) fn scatter_heads(x: &Tensor, rows: Rows<'_>, dim: i64, times: i64, y: &Tensor) {
    let (x, [batch, width], [tokens, own]) = (dense(x), matrix(x), matrix(y));
    let n = rows.check(tokens);
    assert!(y.is_contiguous() && y.kind() == x.kind(), "the target was made for this call");
    assert_eq!((batch, width), (n * rows.length, own * times), "a batch of these sequences");
    assert_eq!(own % dim, 0, "rows are whole heads");
    let (starts, lengths) = (rows.starts.as_ptr(), rows.lengths.as_ptr());
    // SAFETY: `x` is dense `[n·length, own·times]`, `y` is dense `[T, own]`, every sequence lies in it, and
    // no two of a pack overlap.
    unsafe {
        anneal_scatter_heads(
            kind(&x),
            at(&x),
            starts,
            lengths,
            at(y),
            n,
            rows.length,
            own / dim,
            dim,
            times,
        );
    }
}

fn kind(x: &Tensor) -> c_int {
    assert!(supports(x), "the caller asked `supports`");
    c_int::from(x.kind() == Kind::BFloat16)
}

fn at(x: &Tensor) -> *mut c_void {
    x.data_ptr()
}

fn dense(x: &Tensor) -> Tensor {
    x.contiguous()
}

/// `x` as it is where its rows are dense, whatever lies between them.
fn dense_rows(x: &Tensor) -> Tensor {
    if x.stride().last() == Some(&1) { x.shallow_clone() } else { x.contiguous() }
}

/// `y`, dense and in the kind of `x`.
fn like(x: &Tensor, y: &Tensor) -> Tensor {
    y.to_kind(x.kind()).contiguous()
}

fn matrix(x: &Tensor) -> [i64; 2] {
    let size = x.size();
    let n = *size.last().expect("a tensor with a last dimension");
    [x.numel() as i64 / n, n]
}

fn gelu(activation: Activation) -> c_int {
    c_int::from(activation == Activation::GeluTanh)
}
