//! Sequences with and without an adapter, in one batch, in pieces, over scattered blocks of one cache:
//! every architecture gives each of them the logits that transformers and PEFT give it alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;

use lm::adapters::{Adapter, Requirements, Routes};
use lm::kv_cache::KvCache;
use lm::model::Model;
use lm::packed::Packed;
use lm::paged::{BLOCK_TOKENS, PagedCache, Span, block_bytes};
use tch::{Device, Kind, Tensor};
use tests_numerics::{CASES, Case, close, run};

const BLOCKS: i64 = 64;

/// A sequence as a server sees it.
struct Job {
    ids: Vec<i64>,
    adapted: bool,
    blocks: Vec<i64>,
    done: usize,
    logits: Vec<Tensor>,
}

#[test]
fn mixed_batches_give_everyone_their_own_logits() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let (folder, peft) = case.adapter("adapter").unwrap();
        let mut model = run::load(&case).unwrap();
        let shapes = model.linear_shapes();
        let needs =
            Requirements { shapes: &shapes, max_rank: 64, kind: Kind::Float, device: Device::Cpu };
        let adapter = Adapter::open(&folder, &needs).unwrap();
        assert!(adapter.bytes() > 0);
        // Pieces of one token, of a few, and of enough to go through one product.
        for pieces in [[1, 3], [9, 2], [64, 64]] {
            let jobs = serve(&model, &adapter, &case, pieces);
            let [adapted, plain] = [true, false].map(|adapted| {
                let own = jobs.iter().filter(|job| job.adapted == adapted);
                Tensor::cat(&own.flat_map(|job| &job.logits).collect::<Vec<_>>(), 0)
            });
            close(&format!("{name}: adapter, {pieces:?}"), &adapted, peft.logits()).unwrap();
            let base = case.reference.logits();
            close(&format!("{name}: base, {pieces:?}"), &plain, base).unwrap();
        }
    }
}

/// Runs the case's two sequences, each with and without the adapter, `pieces` tokens a step.
fn serve(model: &Model, adapter: &Adapter, case: &Case, pieces: [usize; 2]) -> Vec<Job> {
    let limit = block_bytes(model.config(), Kind::Float) * BLOCKS as u64 + 7;
    let paged = PagedCache::new(model.config(), Kind::Float, Device::Cpu, limit).unwrap();
    assert_eq!(paged.blocks() as i64, BLOCKS);
    assert!(paged.bytes() as u64 <= limit);
    let cache = RefCell::new(KvCache::Paged(paged));
    let mut jobs = Vec::new();
    for adapted in [true, false] {
        for sequence in case.batch(0) {
            // From the end of the pool on, every third block.
            let count = sequence.ids.len() as i64 / BLOCK_TOKENS + 1;
            let first = jobs.len() as i64;
            let blocks = (0..count).map(|block| BLOCKS - 1 - first - 4 * block).collect();
            jobs.push(Job {
                ids: sequence.ids.clone(),
                adapted,
                blocks,
                done: 0,
                logits: Vec::new(),
            });
        }
    }
    while jobs.iter().any(|job| job.done < job.ids.len()) {
        step(model, adapter, &cache, &mut jobs, pieces);
    }
    jobs
}

fn step(
    model: &Model,
    adapter: &Adapter,
    cache: &RefCell<KvCache>,
    jobs: &mut [Job],
    pieces: [usize; 2],
) {
    let (mut ids, mut lengths, mut pieces_of) = (Vec::new(), Vec::new(), Vec::new());
    let (mut routes, mut spans) = (Routes::new(), Vec::new());
    for (index, job) in jobs.iter().enumerate() {
        let length = pieces[index % 2].min(job.ids.len() - job.done);
        if length == 0 {
            continue;
        }
        if job.adapted {
            routes.push(adapter, ids.len() as i64, length as i64);
        }
        ids.extend(&job.ids[job.done..job.done + length]);
        lengths.push(length as i64);
        pieces_of.push((job.done as i64, length as i64, job.ids.len() as i64));
        let (blocks, start) = (job.blocks.clone(), job.done as i64);
        spans.push(Span { blocks, start, length: length as i64 });
    }
    if let KvCache::Paged(paged) = &mut *cache.borrow_mut() {
        paged.begin(spans);
    }
    let wanted: Vec<i64> = (0..ids.len() as i64).collect();
    let packed = Packed::pieces(&ids, &pieces_of, Device::Cpu);
    let logits = tch::no_grad(|| model.step(&packed, cache, &routes, &wanted));
    let mut parts = logits.split_with_sizes(&lengths, 0).into_iter();
    for (index, job) in jobs.iter_mut().enumerate() {
        let length = pieces[index % 2].min(job.ids.len() - job.done);
        if length > 0 {
            job.logits.extend(parts.next());
            job.done += length;
        }
    }
}
