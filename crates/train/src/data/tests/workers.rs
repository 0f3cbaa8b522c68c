//! However many threads read, examples and faults are the same, in the same order.

use api::facts::DataFacts;
use api::run_spec::HeldOut;

use super::super::Split;
use super::super::load::{Found, Reading, load};
use super::super::meter::Meter;
use super::{Case, Example, SEED, conversations};

fn read(case: &Case, workers: usize) -> (DataFacts, Vec<(Split, Example)>) {
    let found = Found::of(&case.data);
    let (data, tokenizer, seed, digest) = (&case.data, &case.tokenizer, SEED, "");
    let reading = Reading { data, tokenizer, seed, digest, workers };
    let mut tell = |_, _| {};
    let mut meter = Meter::new([].into_iter(), &mut tell);
    let mut examples = Vec::new();
    let mut take = |split, example| examples.push((split, example));
    let facts = load(found, &reading, &mut meter, &mut take);
    (facts, examples)
}

#[test]
fn one_thread_and_many_give_the_same() {
    let mut rows = conversations(1500);
    // Copies, broken records and empty answers, spread over the file.
    let mut lines: Vec<String> = rows.lines().map(str::to_owned).collect();
    for at in (0..1400).step_by(97) {
        lines[at] = "{\"messages\": []}".to_owned();
        lines[at + 30] = "oops".to_owned();
        lines[at + 60] = lines[at + 1].clone();
    }
    let faulty = lines.join("\n");
    rows.push_str(&faulty.replace("number", "count"));
    for text in [conversations(1500), faulty, rows] {
        let mut case = Case::new("a.jsonl", text);
        case.data.validation = HeldOut::Fraction(0.2);
        let one = read(&case, 1);
        for workers in [2, 7] {
            assert_eq!(read(&case, workers), one);
        }
    }
}
