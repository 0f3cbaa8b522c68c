//! Keys and values of many sequences in a pool of blocks of a fixed size: the cache of a server.
//!
//! The pool is allocated once, within a limit of bytes, and never grows. Which block belongs to which
//! sequence is decided elsewhere; two sequences may share blocks that neither writes to. Shapes: `N` blocks
//! of [`BLOCK`] tokens, `G` groups of `C` features.

use tch::{Device, Kind, Tensor};

use crate::attention::Heads;
use crate::config::ModelConfig;
use crate::kernels;
use crate::serve_kernels::{self, BLOCK, Pool, Query};

/// Tokens of a block.
pub const BLOCK_TOKENS: i64 = BLOCK;

/// From this many new tokens on, a sequence goes through one product and not row by row.
const CHUNK: i64 = 8;

/// The pool of all layers, and where the sequences of the current step lie in it.
#[derive(Debug)]
pub struct PagedCache {
    layers: Vec<Layer>,
    blocks: i64,
    spans: Vec<Span>,
    /// Where in the pool each row of the step goes: `block·BLOCK + offset`.
    places: Vec<i64>,
}

#[derive(Debug)]
struct Layer {
    keys: Tensor,
    values: Tensor,
}

/// New tokens of one sequence: they follow `start` tokens that the pool holds already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub blocks: Vec<i64>,
    pub start: i64,
    pub length: i64,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PagedError {
    #[error(
        "a key-value cache of {limit} bytes holds no block of {BLOCK} tokens; the model takes {needed} for one"
    )]
    TooSmall { limit: u64, needed: u64 },
    #[error("cannot allocate a key-value cache of {bytes} bytes: {reason}")]
    Allocation { bytes: u64, reason: String },
}

/// Bytes that one block takes in all layers.
pub fn block_bytes(config: &ModelConfig, kind: Kind) -> u64 {
    let token = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
    (token * BLOCK) as u64 * kind.elt_size_in_bytes() as u64
}

impl PagedCache {
    /// As many blocks as fit into `limit` bytes.
    pub fn new(
        config: &ModelConfig,
        kind: Kind,
        device: Device,
        limit: u64,
    ) -> Result<Self, PagedError> {
        let needed = block_bytes(config, kind);
        let blocks = (limit / needed) as i64;
        if blocks == 0 {
            return Err(PagedError::TooSmall { limit, needed });
        }
        let (groups, dim) = (config.num_key_value_heads, config.head_dim);
        // On other devices masked places take part in a product, where nothing may be infinite.
        let make = |shape: [i64; 4]| match device {
            Device::Cpu => Tensor::f_empty(shape, (kind, device)),
            _ => Tensor::f_zeros(shape, (kind, device)),
        };
        let layer = |_| {
            let keys = make([blocks, groups, dim, BLOCK])?;
            Ok(Layer { keys, values: make([blocks, groups, BLOCK, dim])? })
        };
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_, tch::TchError>>();
        let layers = layers.map_err(|error| PagedError::Allocation {
            bytes: needed * blocks as u64,
            reason: error.to_string(),
        })?;
        Ok(Self { layers, blocks, spans: Vec::new(), places: Vec::new() })
    }

    /// Blocks in the pool.
    pub fn blocks(&self) -> usize {
        self.blocks as usize
    }

    /// Bytes that the pool takes; never more than the limit.
    pub fn bytes(&self) -> usize {
        let bytes = |x: &Tensor| x.numel() * x.kind().elt_size_in_bytes();
        self.layers.iter().map(|layer| bytes(&layer.keys) + bytes(&layer.values)).sum()
    }

    /// Says what the rows of the next forward pass are, sequence by sequence.
    pub fn begin(&mut self, spans: Vec<Span>) {
        self.places.clear();
        for span in &spans {
            for position in span.start..span.start + span.length {
                let block = span.blocks[(position / BLOCK) as usize];
                self.places.push(block * BLOCK + position % BLOCK);
            }
        }
        self.spans = spans;
    }

    /// Stores keys and values of the step's rows and attends to all that their sequences hold.
    pub(crate) fn attend(&self, [q, k, v]: [&Tensor; 3], heads: Heads, layer: usize) -> Tensor {
        let Layer { keys, values } = &self.layers[layer];
        let pool = Pool { keys, values, groups: heads.key_value, dim: heads.dim };
        let y = Tensor::empty(q.size(), (q.kind(), q.device()));
        if kernels::supports(q) {
            serve_kernels::store(k, v, &pool, &self.places);
            self.attend_row_by_row(q, &y, heads, &pool);
        } else {
            self.store_by_index(k, v, &pool);
        }
        let mut offset = 0;
        for span in &self.spans {
            if span.length >= CHUNK || !kernels::supports(q) {
                attend_chunk(q, &y, heads, &pool, span, offset);
            }
            offset += span.length;
        }
        y
    }

    /// The sequences with few new tokens.
    fn attend_row_by_row(&self, q: &Tensor, y: &Tensor, heads: Heads, pool: &Pool<'_>) {
        let mut queries = Vec::new();
        let mut offset = 0;
        for span in &self.spans {
            let rows = if span.length < CHUNK { span.length } else { 0 };
            queries.extend((0..rows).map(|row| {
                let last = span.start + row;
                let first = heads.window.map_or(0, |window| (last + 1 - window).max(0));
                Query { row: offset + row, blocks: &span.blocks, first, last }
            }));
            offset += span.length;
        }
        if !queries.is_empty() {
            serve_kernels::attend(q, y, pool, &queries, heads.scale);
        }
    }

    fn store_by_index(&self, k: &Tensor, v: &Tensor, pool: &Pool<'_>) {
        let index = |of: fn(i64) -> i64| {
            let list: Vec<i64> = self.places.iter().map(|place| of(*place)).collect();
            Some(Tensor::from_slice(&list).to_device(k.device()))
        };
        let (block, offset) = (|| index(|p| p / BLOCK), || index(|p| p % BLOCK));
        let shape = [-1, pool.groups, pool.dim];
        let none = || None::<Tensor>;
        let at = [block(), none(), none(), offset()];
        let _ = pool.keys.shallow_clone().index_put_(&at, &k.reshape(shape), false);
        let at = [block(), none(), offset(), none()];
        let _ = pool.values.shallow_clone().index_put_(&at, &v.reshape(shape), false);
    }
}

/// Many new tokens of one sequence against all that it holds.
fn attend_chunk(q: &Tensor, y: &Tensor, heads: Heads, pool: &Pool<'_>, span: &Span, offset: i64) {
    let total = span.start + span.length;
    let used = &span.blocks[..((total - 1) / BLOCK + 1) as usize];
    let index = Tensor::from_slice(used).to_device(q.device());
    let padded = used.len() as i64 * BLOCK;
    let keys = pool.keys.index_select(0, &index).permute([1, 0, 3, 2]);
    let values = pool.values.index_select(0, &index).permute([1, 0, 2, 3]);
    let [keys, values] = [keys, values]
        .map(|x| x.reshape([1, heads.key_value, padded, heads.dim]).narrow(2, 0, total));
    let rows = |x: &Tensor| {
        let part = x.narrow(0, offset, span.length);
        part.view([1, span.length, heads.query, heads.dim]).transpose(1, 2)
    };
    let mask = crate::attention::cached_mask(heads, span.start, span.length, q);
    let causal = mask.is_none() && span.start == 0 && span.length > 1;
    let gqa = heads.query != heads.key_value;
    let out = Tensor::scaled_dot_product_attention(
        &rows(&q.contiguous()),
        &keys,
        &values,
        mask,
        0.0,
        causal,
        heads.scale,
        gqa,
    );
    rows(y).copy_(&out);
}
