//! Token by token over a key-value cache, every architecture answers as it does when it reads all
//! tokens anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use lm::generate::{Flow, GenerateOptions, generate};
use tests_numerics::{CASES, Case, Sequence, run};

#[test]
fn cached_generation_is_greedy_decoding() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let model = run::load(&case).unwrap();
        // Of 22, 9 and 22 tokens: with sliding attention, longer and shorter than the window at first;
        // with LongRoPE, on one side of its limit to the end.
        let prompts = [1, 2, 4].map(|index| case.sequences[index].clone());
        let ids: Vec<Vec<u32>> =
            prompts.iter().map(|prompt| prompt.ids.iter().map(|id| *id as u32).collect()).collect();
        let options = GenerateOptions { max_new_tokens: 7, ..GenerateOptions::default() };
        let cached = generate(&model, &ids, &options, &mut |_, _| Flow::Continue);
        for (prompt, cached) in prompts.into_iter().zip(cached) {
            let mut sequence: Sequence = prompt;
            for (place, token) in cached.into_iter().enumerate() {
                let logits = run::logits(&model, &[&sequence]);
                let best = logits.get(-1).argmax(0, false).int64_value(&[]);
                assert_eq!(i64::from(token), best, "{name}: token {place}");
                sequence.ids.push(best);
            }
        }
    }
}
