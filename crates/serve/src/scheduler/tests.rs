//! The scheduler by itself: a model that answers with a count stands in for the real one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use super::*;

const LIMITS: Limits = Limits { sequences: 4, step_tokens: 8, blocks: 16, block_tokens: 4 };

fn new(id: SequenceId, prompt: std::ops::Range<u32>, adapter: u64) -> NewSequence {
    NewSequence { id, prompt: prompt.collect(), adapter, family: adapter }
}

fn shape(step: &Step) -> Vec<(SequenceId, usize, usize, bool)> {
    step.work.iter().map(|w| (w.id, w.start, w.tokens.len(), w.draws)).collect()
}

/// Runs until every sequence has `wanted` more tokens; checks each step against what a cache may hold.
fn run(scheduler: &mut Scheduler, wanted: &BTreeMap<SequenceId, usize>) -> (usize, usize) {
    let mut left = wanted.clone();
    let mut cache: BTreeMap<(Block, usize), (u64, Vec<u32>)> = BTreeMap::new();
    let (mut steps, mut preempted) = (0, 0);
    while !scheduler.is_idle() {
        let step = scheduler.plan();
        assert!(!step.work.is_empty(), "a step makes progress");
        assert!(step.work.iter().map(|w| w.tokens.len()).sum::<usize>() <= LIMITS.step_tokens);
        steps += 1;
        preempted += step.preempted.len();
        for work in &step.work {
            // What the cache holds at a place is the whole beginning of the sequence up to there.
            let mut tokens = match work.start.checked_sub(1) {
                Some(last) => cache[&(work.blocks[last / 4], last % 4)].1.clone(),
                None => Vec::new(),
            };
            for token in &work.tokens {
                let place = (work.blocks[tokens.len() / 4], tokens.len() % 4);
                tokens.push(*token);
                cache.insert(place, (work.adapter, tokens.clone()));
            }
        }
        for work in &step.work {
            for index in 0..work.start + work.tokens.len() {
                let (adapter, held) = &cache[&(work.blocks[index / 4], index % 4)];
                assert_eq!(*adapter, work.adapter);
                assert_eq!(held.len(), index + 1, "{work:?}");
            }
            if work.draws {
                let left = left.get_mut(&work.id).unwrap();
                *left -= 1;
                if *left == 0 {
                    scheduler.end(work.id);
                } else {
                    scheduler.drawn(work.id, 1000 + *left as u32);
                }
            }
        }
    }
    assert!(left.values().all(|left| *left == 0));
    assert_eq!(scheduler.counts().blocks_held, 0, "everything is given back");
    (steps, preempted)
}

#[test]
fn answers_go_first_and_prompts_come_in_pieces() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(new(1, 0..3, 0));
    scheduler.add(new(2, 100..112, 0));
    assert_eq!(shape(&scheduler.plan()), [(1, 0, 3, true), (2, 0, 5, false)]);
    scheduler.drawn(1, 7);
    assert_eq!(shape(&scheduler.plan()), [(1, 3, 1, true), (2, 5, 7, true)]);
    scheduler.drawn(1, 8);
    scheduler.drawn(2, 9);
    assert_eq!(shape(&scheduler.plan()), [(1, 4, 1, true), (2, 12, 1, true)]);
}

#[test]
fn sequences_of_one_adapter_lie_side_by_side() {
    let mut scheduler = Scheduler::new(LIMITS);
    for (id, adapter) in [(1, 5), (2, 0), (3, 5), (4, 2)] {
        scheduler.add(new(id, id as u32 * 10..id as u32 * 10 + 2, adapter));
    }
    let adapters: Vec<u64> = scheduler.plan().work.iter().map(|work| work.adapter).collect();
    assert_eq!(adapters, [0, 2, 5, 5]);
}

#[test]
fn a_prompt_that_is_known_is_not_computed_again() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(new(1, 0..8, 3));
    assert_eq!(shape(&scheduler.plan()), [(1, 0, 8, true)]);
    scheduler.end(1);
    scheduler.add(new(2, 0..8, 3));
    assert_eq!(shape(&scheduler.plan()), [(2, 4, 4, true)], "the last token is computed");
    scheduler.add(new(3, 0..8, 4));
    assert_eq!(shape(&scheduler.plan())[0], (3, 0, 8, true), "another adapter computes its own");
    assert_eq!((scheduler.counts().prefix_queries, scheduler.counts().prefix_hits), (24, 4));
}

#[test]
fn equal_prompts_of_one_step_share_their_blocks() {
    let mut scheduler = Scheduler::new(Limits { step_tokens: 32, ..LIMITS });
    scheduler.add(new(1, 0..9, 0));
    scheduler.add(new(2, 0..9, 0));
    let step = scheduler.plan();
    assert_eq!(shape(&step), [(1, 0, 9, true), (2, 8, 1, true)]);
    assert_eq!(step.work[0].blocks[..2], step.work[1].blocks[..2]);
    assert_ne!(step.work[0].blocks[2], step.work[1].blocks[2]);
}

#[test]
fn no_more_sequences_than_allowed_are_answered_at_once() {
    let mut scheduler = Scheduler::new(LIMITS);
    for id in 0..6 {
        scheduler.add(new(id, 0..1, 0));
    }
    assert_eq!(scheduler.plan().work.len(), 4);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (4, 2));
    scheduler.end(5);
    scheduler.end(0);
    (1..4).for_each(|id| scheduler.drawn(id, 9));
    let ids: Vec<_> = scheduler.plan().work.iter().map(|work| work.id).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn when_the_cache_is_full_the_youngest_waits_and_everyone_is_answered() {
    let mut scheduler = Scheduler::new(LIMITS);
    let mut wanted = BTreeMap::new();
    for id in 0..7 {
        let start = id as u32 * 100;
        scheduler.add(new(id, start..start + 10, id % 3));
        wanted.insert(id, 30);
    }
    let (_, preempted) = run(&mut scheduler, &wanted);
    assert!(preempted > 0, "16 blocks of 4 do not hold 4 sequences of 40");
    assert_eq!(scheduler.counts().preemptions, preempted as u64);
}

#[test]
fn a_sequence_as_long_as_the_cache_is_answered() {
    let mut scheduler = Scheduler::new(LIMITS);
    assert_eq!(scheduler.longest(), 64);
    scheduler.add(new(1, 0..40, 0));
    scheduler.add(new(2, 50..90, 0));
    run(&mut scheduler, &BTreeMap::from([(1, 25), (2, 25)]));
}

#[test]
fn many_random_loads_keep_every_promise() {
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let mut scheduler = Scheduler::new(LIMITS);
        let mut wanted = BTreeMap::new();
        for id in 0..=next(9) {
            // Few different beginnings, so that many share them.
            let (start, length) = (next(3) as u32 * 100, next(30) as u32 + 1);
            scheduler.add(new(id, start..start + length, next(2)));
            wanted.insert(id, next(30) as usize + 1);
        }
        run(&mut scheduler, &wanted);
    }
}
