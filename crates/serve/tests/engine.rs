//! The engine answers everyone as if they were alone, and gives back what it is not asked for any more.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "every test binary uses a part of the support")]

mod support;

use std::sync::Arc;

use lm::adapters::Adapter;
use lm::generate::{Flow, GenerateOptions, generate};
use lm::sample::Sampling;
use serve::engine::{Answer, Engine, EngineOptions, Event, Failed, Finish, Submission};
use serve::metrics::Metrics;
use support::{Bench, until};

fn engine(bench: &Bench, options: EngineOptions) -> (Engine, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("tiny").unwrap());
    (Engine::start(bench.files(), options, Arc::clone(&metrics)).unwrap(), metrics)
}

fn small() -> EngineOptions {
    EngineOptions {
        cache_bytes: 4 << 20,
        sequences: 8,
        step_tokens: 48,
        ..EngineOptions::default()
    }
}

fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|place| (seed * 31 + place * place * 7) % 256).collect()
}

fn submission(prompt: Vec<u32>, adapter: u64, max_tokens: usize) -> Submission {
    let (sampling, ends) = (Sampling::default(), Vec::new());
    Submission { prompt, adapter, sampling, max_tokens, ends, guide: None }
}

/// All tokens of an answer, and how it ended.
fn read(answer: &mut Answer) -> (Vec<u32>, Result<Finish, Failed>) {
    let mut tokens = Vec::new();
    loop {
        match answer.events.blocking_recv().unwrap() {
            Event::Token(drawn) => tokens.push(drawn.id),
            Event::Done(finish) => return (tokens, Ok(finish)),
            Event::Failed(failed) => return (tokens, Err(failed)),
        }
    }
}

/// What the model alone answers, with the adapter put beside it as in training.
fn alone(bench: &Bench, adapter: Option<&str>, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut model = bench.model();
    if let Some(name) = adapter {
        lm::peft::load(&mut model, &bench.path(name)).unwrap();
    }
    let options = GenerateOptions { max_new_tokens: count, ..GenerateOptions::default() };
    generate(&model, &[prompt.to_vec()], &options, &mut |_, _| Flow::Continue).remove(0)
}

#[test]
fn mixed_requests_are_answered_as_if_each_was_alone() {
    let bench = Bench::new();
    let (engine, metrics) = engine(&bench, small());
    let mut revisions = vec![(None, 0)];
    for (name, rank) in [("a", 4), ("b", 8), ("c", 16)] {
        let folder = bench.adapter(name, rank, rank);
        let adapter = Adapter::open(&folder, &engine.requirements()).unwrap();
        revisions.push((Some(name), engine.offer(adapter, folder)));
    }
    // More than are answered at once, of lengths on both sides of a block and of a step.
    let jobs: Vec<_> = (0..20)
        .map(|index| {
            let (name, revision) = revisions[index % 4];
            (name, revision, prompt(index as u32, [3, 31, 32, 33, 100][index % 5]))
        })
        .collect();
    let submissions =
        jobs.iter().map(|(_, revision, prompt)| submission(prompt.clone(), *revision, 40));
    let mut answers = engine.submit(submissions.collect()).unwrap();
    for ((name, _, prompt), answer) in jobs.iter().zip(&mut answers) {
        let (tokens, finish) = read(answer);
        assert_eq!(finish, Ok(Finish::Length));
        assert_eq!(tokens, alone(&bench, *name, prompt, 40), "{name:?}, {} tokens", prompt.len());
    }
    let text = metrics.common().text();
    assert!(
        text.contains(
            "vllm:request_success_total{finished_reason=\"length\",model_name=\"tiny\"} 20"
        )
    );
    assert!(text.contains("vllm:generation_tokens_total{model_name=\"tiny\"} 800"), "{text}");
}

#[test]
fn with_int8_weights_a_mixed_batch_answers_as_each_alone() {
    let bench = Bench::new();
    let folder = bench.adapter("a", 4, 1);
    let (engine, _) = engine(&bench, EngineOptions { int8: true, ..small() });
    let adapter = Adapter::open(&folder, &engine.requirements()).unwrap();
    let revisions = [0, engine.offer(adapter, folder)];
    let jobs: Vec<_> =
        (0..6).map(|index| (revisions[index % 2], prompt(index as u32, 30))).collect();
    let one = |(revision, prompt): &(u64, Vec<u32>)| submission(prompt.clone(), *revision, 20);
    let mut mixed = engine.submit(jobs.iter().map(one).collect()).unwrap();
    for (job, mixed) in jobs.iter().zip(&mut mixed) {
        let alone = read(&mut engine.submit(vec![one(job)]).unwrap()[0]).0;
        assert_eq!((read(mixed).0, alone.len()), (alone, 20));
    }
}

#[test]
fn a_full_cache_changes_no_answer() {
    let bench = Bench::new();
    // Six blocks: two sequences of these do not fit to their end.
    let cache_bytes = 6 * lm::paged::block_bytes(bench.model().config(), tch::Kind::Float);
    let (engine, metrics) = engine(&bench, EngineOptions { cache_bytes, ..small() });
    assert_eq!(engine.facts().context, 192, "the cache limits the length");
    let jobs: Vec<_> = (0..4).map(|index| prompt(index, 40)).collect();
    let submissions = jobs.iter().map(|prompt| submission(prompt.clone(), 0, 100)).collect();
    let mut answers = engine.submit(submissions).unwrap();
    for (prompt, answer) in jobs.iter().zip(&mut answers) {
        assert_eq!(read(answer).0, alone(&bench, None, prompt, 100));
    }
    assert!(!metrics.common().text().contains("vllm:num_preemptions_total{model_name=\"tiny\"} 0"));
}

#[test]
fn a_known_beginning_is_taken_from_the_cache() {
    let bench = Bench::new();
    let (engine, metrics) = engine(&bench, small());
    let prompt = prompt(3, 100);
    let mut both = Vec::new();
    for _ in 0..2 {
        both.push(read(&mut engine.submit(vec![submission(prompt.clone(), 0, 20)]).unwrap()[0]).0);
    }
    assert_eq!(both[0], both[1]);
    assert!(
        metrics.common().text().contains("vllm:prefix_cache_hits_total{model_name=\"tiny\"} 96")
    );
}

#[test]
fn who_leaves_gives_back_the_place_and_too_many_are_refused() {
    let bench = Bench::new();
    let (engine, _) = engine(&bench, EngineOptions { sequences: 2, waiting: 1, ..small() });
    let long = |count: usize| (0..count).map(|_| submission(prompt(1, 5), 0, 1500)).collect();
    let answers = engine.submit(long(3)).unwrap();
    assert!(engine.submit(long(1)).is_err());
    assert_eq!(engine.in_flight(), 3, "a refused request takes no place");
    drop(answers);
    assert_eq!(engine.in_flight(), 0);
    let mut next = engine.submit(vec![submission(prompt(1, 5), 0, 3)]).unwrap();
    assert_eq!(read(&mut next[0]).0.len(), 3, "not behind 4500 tokens that nobody wants");
}

#[test]
fn adapters_leave_memory_and_come_back_and_a_retired_one_is_drained() {
    let bench = Bench::new();
    let folders = [("a", 1), ("b", 2)].map(|(name, seed)| bench.adapter(name, 4, seed));
    let (engine, metrics) = engine(&bench, EngineOptions { adapter_bytes: 1, ..small() });
    let revisions = folders.map(|folder| {
        let adapter = Adapter::open(&folder, &engine.requirements()).unwrap();
        engine.offer(adapter, folder)
    });
    let ask = |revision, count| {
        engine.submit(vec![submission(prompt(9, 10), revision, count)]).unwrap().remove(0)
    };
    for (name, revision) in
        ["a", "b", "a"].into_iter().zip([revisions[0], revisions[1], revisions[0]])
    {
        let (tokens, finish) = read(&mut ask(revision, 12));
        assert_eq!(
            (tokens, finish),
            (alone(&bench, Some(name), &prompt(9, 10), 12), Ok(Finish::Length))
        );
        let resident =
            || metrics.common().text().contains("anneal_adapters_resident{model_name=\"tiny\"} 1");
        until("one adapter fits", resident, |one| *one);
    }
    let mut running = ask(revisions[0], 300);
    engine.retire(revisions[0]);
    let (tokens, finish) = read(&mut running);
    assert_eq!((tokens.len(), finish), (300, Ok(Finish::Length)), "what runs is not cut off");
    let end = || read(&mut ask(revisions[0], 1)).1;
    let _ = until("it is gone", end, |end| *end == Err(Failed::Gone));
    assert_eq!(read(&mut ask(revisions[1], 2)).0.len(), 2);
}
