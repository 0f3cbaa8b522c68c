//! Keys and values of the tokens that a model has already seen, for each layer and sequence.

use tch::{Kind, Tensor};

use crate::paged::PagedCache;

/// One of two stores: one that grows with what it holds, for a few sequences that end together, and one
/// of a fixed size, for a server.
#[derive(Debug)]
pub enum KvCache {
    Growing(Growing),
    Paged(PagedCache),
}

/// A growing store of `[1, heads, tokens, C]` for each layer and each sequence's place.
#[derive(Debug, Default)]
pub struct Growing {
    entries: Vec<Vec<Option<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    keys: Tensor,
    values: Tensor,
}

/// Tokens that an entry grows by, so that not every token allocates.
const STEP: i64 = 64;

impl Default for KvCache {
    fn default() -> Self {
        Self::Growing(Growing::default())
    }
}

impl KvCache {
    /// A store that grows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that the stored tensors take.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Growing(growing) => growing.bytes(),
            Self::Paged(paged) => paged.bytes(),
        }
    }
}

impl Growing {
    /// Forgets the sequence at this place.
    pub fn clear(&mut self, place: usize) {
        for layer in &mut self.entries {
            if let Some(entry) = layer.get_mut(place) {
                *entry = None;
            }
        }
    }

    /// Bytes that the stored tensors take.
    pub fn bytes(&self) -> usize {
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        self.entries.iter().flatten().flatten().map(|e| bytes(&e.keys) + bytes(&e.values)).sum()
    }

    /// Puts keys and values `[1, heads, length, C]` behind the first `start` tokens of a sequence and
    /// returns all `start + length`.
    pub fn extend(
        &mut self,
        layer: usize,
        place: usize,
        start: i64,
        keys: &Tensor,
        values: &Tensor,
    ) -> (Tensor, Tensor) {
        if self.entries.len() <= layer {
            self.entries.resize_with(layer + 1, Vec::new);
        }
        let places = &mut self.entries[layer];
        if places.len() <= place {
            places.resize_with(place + 1, || None);
        }
        let total = start + keys.size()[2];
        let entry = match places[place].take() {
            Some(entry) => entry.grown(start, total),
            None => Entry { keys: empty_like(keys, total), values: empty_like(values, total) },
        };
        entry.keys.narrow(2, start, total - start).copy_(keys);
        entry.values.narrow(2, start, total - start).copy_(values);
        let all = (entry.keys.narrow(2, 0, total), entry.values.narrow(2, 0, total));
        places[place] = Some(entry);
        all
    }
}

impl Entry {
    fn grown(self, start: i64, total: i64) -> Self {
        if self.keys.size()[2] >= total {
            return self;
        }
        let grow = |old: &Tensor| {
            let new = empty_like(old, total + total / 2);
            new.narrow(2, 0, start).copy_(&old.narrow(2, 0, start));
            new
        };
        Self { keys: grow(&self.keys), values: grow(&self.values) }
    }
}

fn empty_like(like: &Tensor, tokens: i64) -> Tensor {
    let size = like.size();
    let tokens = (tokens + STEP - 1) / STEP * STEP;
    let (kind, device): (Kind, _) = (like.kind(), like.device());
    Tensor::empty([size[0], size[1], tokens, size[3]], (kind, device))
}
