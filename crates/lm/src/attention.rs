//! Causal attention over packed sequences, each by itself, and over a key-value cache.
//!
//! Sequences of like length go through one batched call (`attention/batch.rs`), so that packing costs no
//! padding outside attention, and no mask. A beginning that all have in common
//! is in the pack once (`attention/shared.rs`). Shapes: `q [T, H·C]`, `k` and `v [T, G·C]` with `H` query heads in
//! `G` groups of `C` features.

mod batch;
mod shared;

use std::cell::RefCell;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::config::{LayerType, ModelConfig};
use crate::kv_cache::KvCache;
use crate::packed::{Packed, Run};
use crate::products;
use crate::rope::RopeTable;
use crate::tape::{Mode, Tape, Var};

use batch::Batch;
use shared::Shared;

/// What every layer of a forward pass shares.
#[derive(Debug)]
pub struct Context<'m> {
    pub packed: &'m Packed,
    pub rope: Rc<RopeTable>,
    /// For layers with sliding attention, where the model turns those at another pace.
    pub rope_local: Option<Rc<RopeTable>>,
    pub cache: Option<&'m RefCell<KvCache>>,
    batches: Rc<Vec<Batch>>,
    shared: Option<Rc<Shared>>,
}

/// The shape of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    pub query: i64,
    pub key_value: i64,
    pub dim: i64,
    /// Factor on the scores; `1 / sqrt(dim)` in most models.
    pub scale: f64,
    /// Tokens that a token sees, itself included, in layers with sliding attention.
    pub window: Option<i64>,
}

impl<'m> Context<'m> {
    pub fn new(
        packed: &'m Packed,
        rope: RopeTable,
        rope_local: Option<RopeTable>,
        cache: Option<&'m RefCell<KvCache>>,
    ) -> Self {
        let batches = Rc::new(Batch::all(&packed.whole_lengths(), packed.ids().device()));
        let (rope, rope_local) = (Rc::new(rope), rope_local.map(Rc::new));
        let shared = Shared::of(packed).map(Rc::new);
        Self { packed, rope, rope_local, cache, batches, shared }
    }
}

impl<'m> Tape<'m> {
    /// Attention of layer `layer`: `[T, H·C]`.
    pub fn attention(
        &self,
        [q, k, v]: [&Var<'m>; 3],
        heads: Heads,
        layer: usize,
        context: &Context<'m>,
    ) -> Var<'m> {
        let [qt, kt, vt] = [q, k, v].map(Var::tensor);
        if let Some(cache) = context.cache {
            return self.constant(cached([qt, kt, vt], heads, layer, context, cache));
        }
        let shared = context.shared.clone();
        let [wq, wk, wv] = [qt, kt, vt].map(|x| whole(shared.as_deref(), x));
        if self.mode() == Mode::Autograd {
            let runs = context.packed.runs();
            let outs: Vec<Tensor> =
                runs.iter().map(|run| heads.tracked(&wq, &wk, &wv, *run)).collect();
            return self.constant(own(shared.as_deref(), Tensor::cat(&outs, 0)));
        }
        let y = Tensor::empty_like(&wq);
        let inputs = [&wq, &wk, &wv];
        let sums: Vec<Tensor> =
            context.batches.iter().map(|batch| heads.forward(inputs, &y, batch)).collect();
        let y = own(shared.as_deref(), y);
        if !self.wants(&[q, k, v], false) {
            return self.constant(y);
        }
        let y = self.tracked(y);
        let [q_slot, k_slot, v_slot, slot] = [q, k, v, &y].map(Var::slot);
        let saved = [qt, kt, vt, y.tensor()].map(Tensor::shallow_clone);
        let batches = Rc::clone(&context.batches);
        self.record(move |grads| {
            let Some(dy) = grads.take(slot) else { return };
            let saved = saved.each_ref().map(|x| whole(shared.as_deref(), x));
            let dy = match &shared {
                Some(shared) => shared.own_backward(&dy),
                None => dy,
            };
            let into = [0, 1, 2].map(|i| Tensor::empty_like(&saved[i]));
            for (batch, sums) in batches.iter().zip(&sums) {
                heads.backward(&saved, &dy, sums, into.each_ref(), batch);
            }
            let [dq, dk, dv] = into.map(|dx| match &shared {
                Some(shared) => shared.whole_backward(&dx),
                None => dx,
            });
            grads.add_owned(q_slot, dq);
            grads.add_owned(k_slot, dk);
            grads.add_owned(v_slot, dv);
        });
        y
    }
}

/// Every sequence of a pack whole.
fn whole(shared: Option<&Shared>, x: &Tensor) -> Tensor {
    shared.map_or_else(|| x.shallow_clone(), |shared| shared.whole(x))
}

/// The rows of the pack.
fn own(shared: Option<&Shared>, x: Tensor) -> Tensor {
    match shared {
        Some(shared) => shared.own(&x),
        None => x,
    }
}

impl Heads {
    /// The heads of a layer as the configuration has them.
    pub fn of(config: &ModelConfig, layer: usize) -> Self {
        let dim = config.head_dim;
        let sliding = config.layer_types.get(layer) == Some(&LayerType::Sliding);
        Self {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            dim,
            scale: config.query_pre_attn_scalar.unwrap_or(dim as f64).powf(-0.5),
            window: config.sliding_window.filter(|_| sliding),
        }
    }

    /// A run's rows as `[count, heads, length, C]`, a view.
    fn view(self, x: &Tensor, heads: i64, run: Run) -> Tensor {
        run.rows(x).view([run.count, run.length, heads, self.dim]).transpose(1, 2)
    }

    /// Keys or values, once for each query head of their group.
    fn repeated(self, x: &Tensor, run: Run) -> Tensor {
        let times = self.query / self.key_value;
        self.view(x, self.key_value, run)
            .unsqueeze(2)
            .expand([run.count, self.key_value, times, run.length, self.dim], false)
            .reshape([run.count, self.query, run.length, self.dim])
    }

    /// The sliding window as an additive mask `[length, length]`, where it hides anything.
    fn mask(self, length: i64, kind: Kind, device: Device) -> Option<Tensor> {
        let window = self.window.filter(|window| *window < length)?;
        let hidden = Tensor::ones([length, length], (Kind::Bool, device));
        let hidden = hidden.triu(1).logical_or(&hidden.tril(-window));
        Some(
            Tensor::zeros([length, length], (kind, device)).masked_fill(&hidden, f64::NEG_INFINITY),
        )
    }

    /// Queries, keys and values of a batch as `[count, H, length, C]`; the latter two once for each query
    /// head of their group.
    fn inputs(self, [q, k, v]: [&Tensor; 3], batch: &Batch) -> [Tensor; 3] {
        let times = self.query / self.key_value;
        [(q, 1), (k, times), (v, times)].map(|(x, times)| batch.gather(x, self.dim, times))
    }

    /// Writes a batch's result into `y` and returns the logarithms of its softmax sums.
    fn forward(self, qkv: [&Tensor; 3], y: &Tensor, batch: &Batch) -> Tensor {
        let [q, k, v] = self.inputs(qkv, batch);
        let mask = self.mask(batch.length, q.kind(), q.device());
        let causal = mask.is_none();
        let (out, sums) = if q.device() == Device::Cpu {
            Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
                &q, &k, &v, 0.0, causal, mask, self.scale,
            )
        } else {
            let out = Tensor::scaled_dot_product_attention(
                &q, &k, &v, mask, 0.0, causal, self.scale, false,
            );
            (out, Tensor::new())
        };
        batch.scatter(&out, 1, y);
        sums
    }

    fn backward(
        self,
        saved: &[Tensor; 4],
        dy: &Tensor,
        sums: &Tensor,
        into: [&Tensor; 3],
        batch: &Batch,
    ) {
        let [q, k, v, y] = saved;
        let [q, k, v] = self.inputs([q, k, v], batch);
        let dy = batch.gather(dy, self.dim, 1);
        let mask = self.mask(batch.length, q.kind(), q.device());
        let causal = mask.is_none();
        let (dq, dk, dv) = if q.device() == Device::Cpu {
            let y = batch.gather(y, self.dim, 1);
            let kind = products::kind_of(&q);
            let [q, k, v, y, dy] = [&q, &k, &v, &y, &dy].map(|x| x.to_kind(kind));
            let mask = mask.map(|mask| mask.to_kind(kind));
            Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
                &dy, &q, &k, &v, &y, sums, 0.0, causal, mask, self.scale,
            )
        } else {
            self.backward_by_autograd([&q, &k, &v], &dy, mask)
        };
        let times = self.query / self.key_value;
        let [dq, dk, dv] = [dq, dk, dv].map(|x| x.to_kind(dy.kind()));
        batch.scatter(&dq, 1, into[0]);
        batch.scatter(&dk, times, into[1]);
        batch.scatter(&dv, times, into[2]);
    }

    /// On other devices LibTorch chooses the kernel, so its autograd has to choose the backward one.
    fn backward_by_autograd(
        self,
        inputs: [&Tensor; 3],
        dy: &Tensor,
        mask: Option<Tensor>,
    ) -> (Tensor, Tensor, Tensor) {
        let causal = mask.is_none();
        let [q, k, v] = inputs.map(|x| x.detach().set_requires_grad(true));
        let product = tch::with_grad(|| {
            let y = Tensor::scaled_dot_product_attention(
                &q, &k, &v, mask, 0.0, causal, self.scale, false,
            );
            (y * dy).sum(Kind::Float)
        });
        let [dq, dk, dv]: [Tensor; 3] =
            Tensor::run_backward(&[product], &[&q, &k, &v], false, false)
                .try_into()
                .expect("one gradient for each of three inputs");
        (dq, dk, dv)
    }

    /// The same by operations that LibTorch can differentiate.
    fn tracked(self, q: &Tensor, k: &Tensor, v: &Tensor, run: Run) -> Tensor {
        let (qr, kr, vr) =
            (self.view(q, self.query, run), self.repeated(k, run), self.repeated(v, run));
        let scores = qr.matmul(&kr.transpose(2, 3)) * self.scale;
        let shown = Tensor::ones([run.length, run.length], (Kind::Bool, q.device())).tril(0);
        let shown = match self.window {
            Some(window) => shown.logical_and(&shown.ones_like().triu(1 - window)),
            None => shown,
        };
        let scores = scores.masked_fill(&shown.logical_not(), f64::NEG_INFINITY);
        let y = scores.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(&vr);
        y.transpose(1, 2).reshape([run.count * run.length, self.query * self.dim])
    }
}

/// Adds keys and values to the cache and attends to all that it holds: prompts in batches, and
/// continuations sequence by sequence.
fn cached(
    [q, k, v]: [&Tensor; 3],
    heads: Heads,
    layer: usize,
    context: &Context<'_>,
    cache: &RefCell<KvCache>,
) -> Tensor {
    let mut cache = cache.borrow_mut();
    let shared = context.shared.as_deref();
    let cache = match &mut *cache {
        KvCache::Paged(paged) => {
            assert!(shared.is_none(), "a paged cache has its own way to share");
            return paged.attend([q, k, v], heads, layer);
        }
        KvCache::Growing(growing) => growing,
    };
    let packed = context.packed;
    let [q, k, v] = [q, k, v].map(|x| whole(shared, x));
    let y = Tensor::empty_like(&q);
    let begins = shared.is_some() || packed.starts().iter().all(|start| *start == 0);
    if begins {
        for batch in &*context.batches {
            let _ = heads.forward([&q, &k, &v], &y, batch);
        }
    }
    let mut offset = 0;
    for ((length, &start), &place) in
        packed.whole_lengths().into_iter().zip(packed.starts()).zip(packed.places())
    {
        let start = if begins { 0 } else { start };
        let run = Run { offset, count: 1, length };
        let [new_k, new_v] = [&k, &v].map(|x| heads.view(x, heads.key_value, run));
        let (keys, values) = cache.extend(layer, place, start, &new_k, &new_v);
        if !begins {
            let y = heads.view(&y, heads.query, run);
            continuation(&heads.view(&q, heads.query, run), [&keys, &values], heads, start, &y);
        }
        offset += length;
    }
    own(shared, y)
}

/// Attention of `q [1, H, length, C]` to the `start + length` tokens that are cached, into `y`.
fn continuation(q: &Tensor, [k, v]: [&Tensor; 2], heads: Heads, start: i64, y: &Tensor) {
    let mask = cached_mask(heads, start, q.size()[2], q);
    let causal = mask.is_none() && start == 0 && q.size()[2] > 1;
    let gqa = heads.query != heads.key_value;
    let out = Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, heads.scale, gqa);
    y.shallow_clone().copy_(&out);
}

/// What a continuation may see: `[length, start + length]`; `None` where causality alone decides.
pub(crate) fn cached_mask(heads: Heads, start: i64, length: i64, like: &Tensor) -> Option<Tensor> {
    let total = start + length;
    let windowed = heads.window.is_some_and(|window| window < total);
    if !windowed && (start == 0 || length == 1) {
        return None;
    }
    let shown = Tensor::ones([length, total], (Kind::Bool, like.device())).tril(start);
    let shown = match heads.window {
        Some(window) => shown.logical_and(&shown.ones_like().triu(start + 1 - window)),
        None => shown,
    };
    let zeros = Tensor::zeros([length, total], (like.kind(), like.device()));
    Some(zeros.masked_fill(&shown.logical_not(), f64::NEG_INFINITY))
}
