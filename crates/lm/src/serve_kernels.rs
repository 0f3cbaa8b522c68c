//! The CPU kernels of `kernels/serve.cpp`: low-rank parts that differ from row to row, and attention over
//! a cache of blocks. For dense tensors in fp32 or bf16, as [`crate::kernels::supports`] tells.

#![expect(
    unsafe_code,
    reason = "calls into C++ with the addresses of tensors, checked for kind and size here"
)]

use std::ffi::{c_int, c_void};

use tch::{Device, Kind, Tensor};

use crate::kernels::supports;

/// Tokens of a block; `kernels/serve.cpp` has the same number.
pub(crate) const BLOCK: i64 = 32;

#[rustfmt::skip]
unsafe extern "C" {
    fn anneal_low_rank(kind: c_int, x: *const c_void, x_stride: i64, y: *mut c_void, y_stride: i64, a: *const *const c_void, b: *const *const c_void, ranks: *const i64, at: *const i64, rows: i64, inputs: i64, outputs: i64);
    fn anneal_int8_product(kind: c_int, x: *const c_void, x_stride: i64, q: *const c_void, scales: *const c_void, y: *mut c_void, rows: i64, inputs: i64, outputs: i64);
    fn anneal_int8_dense(kind: c_int, q: *const c_void, scales: *const c_void, y: *mut c_void, rows: i64, n: i64);
    fn anneal_paged_store(kind: c_int, k: *const c_void, v: *const c_void, k_stride: i64, v_stride: i64, keys: *mut c_void, values: *mut c_void, places: *const i64, rows: i64, groups: i64, dim: i64);
    fn anneal_paged_attention(kind: c_int, q: *const c_void, q_stride: i64, y: *mut c_void, y_stride: i64, keys: *const c_void, values: *const c_void, tables: *const *const i64, firsts: *const i64, lasts: *const i64, at: *const i64, rows: i64, heads: i64, groups: i64, dim: i64, scale: f32);
}

/// The low-rank part of one row: which row, `a [r, inputs]` and `b [r, outputs]`.
pub(crate) type LowRankRow<'a> = (i64, &'a Tensor, &'a Tensor);

/// `y[row] += (x[row]·aᵀ)·b` for each row that is named, in place.
pub(crate) fn low_rank(x: &Tensor, y: &Tensor, rows: &[LowRankRow<'_>]) {
    let [(count, inputs), (outer, outputs)] = [matrix(x), matrix(y)];
    assert_eq!((count, x.kind()), (outer, y.kind()), "input and output have the same rows");
    let (mut a, mut b, mut ranks, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, left, right) in rows {
        let rank = left.size()[0];
        assert!((0..count).contains(row), "the row lies in the tensor");
        assert_eq!((left.size(), right.size()), (vec![rank, inputs], vec![rank, outputs]));
        for matrix in [left, right] {
            assert!(matrix.is_contiguous() && matrix.kind() == x.kind() && supports(matrix));
        }
        a.push(left.data_ptr().cast_const());
        b.push(right.data_ptr().cast_const());
        ranks.push(rank);
        places.push(*row);
    }
    // SAFETY: `x` and `y` have rows of so many elements, the matrices have the shapes that were checked, and
    // the lists are all as long as `rows`.
    unsafe {
        anneal_low_rank(
            kind(x),
            x.data_ptr(),
            x.stride()[0],
            y.data_ptr(),
            y.stride()[0],
            a.as_ptr(),
            b.as_ptr(),
            ranks.as_ptr(),
            places.as_ptr(),
            rows.len() as i64,
            inputs,
            outputs,
        );
    }
}

/// `x·(scales·q)ᵀ`, with an int8 matrix `q [outputs, inputs]` and a factor for each of its rows.
pub(crate) fn int8_product(x: &Tensor, q: &Tensor, scales: &Tensor) -> Tensor {
    let ((rows, inputs), outputs) = (matrix(x), int8(q, scales, x.size()[1]));
    let y = Tensor::empty([rows, outputs], (x.kind(), x.device()));
    // SAFETY: `x` has rows of `inputs` elements, `q` is dense `[outputs, inputs]` with as many factors, and
    // `y` is dense `[rows, outputs]`.
    unsafe {
        anneal_int8_product(
            kind(x),
            x.data_ptr(),
            x.stride()[0],
            q.data_ptr(),
            scales.data_ptr(),
            y.data_ptr(),
            rows,
            inputs,
            outputs,
        );
    }
    y
}

/// `scales·q` in the number format `format`.
pub(crate) fn int8_dense(q: &Tensor, scales: &Tensor, format: Kind) -> Tensor {
    let inputs = q.size()[1];
    let outputs = int8(q, scales, inputs);
    let y = Tensor::empty([outputs, inputs], (format, q.device()));
    // SAFETY: `q` and `y` are dense `[outputs, inputs]`, and there are as many factors as rows.
    unsafe {
        anneal_int8_dense(kind(&y), q.data_ptr(), scales.data_ptr(), y.data_ptr(), outputs, inputs);
    }
    y
}

/// Checks an int8 matrix for the kernels; its rows.
fn int8(q: &Tensor, scales: &Tensor, inputs: i64) -> i64 {
    let outputs = q.size()[0];
    assert_eq!((q.size(), q.kind()), (vec![outputs, inputs], Kind::Int8));
    assert_eq!((scales.size(), scales.kind()), (vec![outputs], Kind::Float));
    assert!(q.is_contiguous() && scales.is_contiguous());
    assert!(q.device() == Device::Cpu && scales.device() == Device::Cpu);
    outputs
}

/// Writes keys and values of each row to its place in a pool.
pub(crate) fn store(k: &Tensor, v: &Tensor, pool: &Pool<'_>, places: &[i64]) {
    let width = pool.groups * pool.dim;
    let most = pool.check(k.kind()) * BLOCK;
    for x in [k, v] {
        assert_eq!((matrix(x), x.kind()), ((places.len() as i64, width), pool.keys.kind()));
    }
    assert!(places.iter().all(|place| (0..most).contains(place)), "places lie in the pool");
    // SAFETY: both inputs have one row of `groups·dim` elements for each place, and all places are blocks of
    // the pool.
    unsafe {
        anneal_paged_store(
            kind(k),
            k.data_ptr(),
            v.data_ptr(),
            k.stride()[0],
            v.stride()[0],
            pool.keys.data_ptr(),
            pool.values.data_ptr(),
            places.as_ptr(),
            places.len() as i64,
            pool.groups,
            pool.dim,
        );
    }
}

/// A query row, the blocks of its sequence, and the first and last token that it sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) row: i64,
    pub(crate) blocks: &'a [i64],
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Attention of some rows of `q [T, H·C]` over the pool, into those of `y`.
pub(crate) fn attend(q: &Tensor, y: &Tensor, pool: &Pool<'_>, queries: &[Query<'_>], scale: f64) {
    let (most, (rows, width)) = (pool.check(q.kind()), matrix(q));
    assert_eq!((matrix(y), y.kind()), ((rows, width), q.kind()), "one result for each query");
    assert_eq!(width % (pool.groups * pool.dim), 0, "query heads are a multiple of groups");
    let (mut tables, mut firsts, mut lasts, mut places) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for query in queries {
        assert!((0..rows).contains(&query.row) && 0 <= query.first && query.first <= query.last);
        let needed = (query.last / BLOCK + 1) as usize;
        let blocks = query.blocks.get(..needed).expect("a sequence has blocks for all its tokens");
        assert!(blocks.iter().all(|block| (0..most).contains(block)), "blocks lie in the pool");
        tables.push(query.blocks.as_ptr());
        firsts.push(query.first);
        lasts.push(query.last);
        places.push(query.row);
    }
    // SAFETY: rows, blocks and tokens lie within the tensors, as was checked; the tables live until the call
    // returns.
    unsafe {
        anneal_paged_attention(
            kind(q),
            q.data_ptr(),
            q.stride()[0],
            y.data_ptr(),
            y.stride()[0],
            pool.keys.data_ptr(),
            pool.values.data_ptr(),
            tables.as_ptr(),
            firsts.as_ptr(),
            lasts.as_ptr(),
            places.as_ptr(),
            queries.len() as i64,
            width / pool.dim,
            pool.groups,
            pool.dim,
            scale as f32,
        );
    }
}

/// One layer's blocks: keys `[N, G, C, BLOCK]`, values `[N, G, BLOCK, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<'a> {
    pub(crate) keys: &'a Tensor,
    pub(crate) values: &'a Tensor,
    pub(crate) groups: i64,
    pub(crate) dim: i64,
}

impl Pool<'_> {
    /// The kernels rely on what is checked here; the number of blocks.
    fn check(&self, kind: Kind) -> i64 {
        let blocks = self.keys.size()[0];
        assert_eq!(self.keys.size(), [blocks, self.groups, self.dim, BLOCK]);
        assert_eq!(self.values.size(), [blocks, self.groups, BLOCK, self.dim]);
        for x in [self.keys, self.values] {
            assert!(x.is_contiguous() && x.kind() == kind && supports(x), "a dense pool");
        }
        blocks
    }
}

/// Rows and features of a matrix whose rows are dense.
fn matrix(x: &Tensor) -> (i64, i64) {
    let (size, stride) = (x.size(), x.stride());
    assert!(size.len() == 2 && stride[1] == 1, "a matrix with dense rows");
    (size[0], size[1])
}

fn kind(x: &Tensor) -> c_int {
    assert!(supports(x), "the caller asked `supports`");
    c_int::from(x.kind() == Kind::BFloat16)
}
