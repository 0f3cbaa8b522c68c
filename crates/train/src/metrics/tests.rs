//! Every metric against its reference implementation.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;

use super::{accuracy, bleu, exact_match, json_validity, label, macro_f1, rouge_l};

#[derive(Deserialize)]
struct Case {
    name: String,
    answers: Vec<String>,
    references: Vec<String>,
    scores: Scores,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scores {
    exact_match: f64,
    accuracy: f64,
    macro_f1: f64,
    rouge_l: f64,
    bleu: f64,
    json_validity: f64,
}

#[test]
fn scores_equal_those_of_sacrebleu_rouge_score_and_scikit_learn() {
    let fixture = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics.json"));
    let cases: Vec<Case> = serde_json::from_str(fixture).unwrap();
    assert!(cases.len() >= 10);
    for Case { name, answers, references, scores } in cases {
        let pairs = [
            ("exact match", exact_match(&answers, &references), scores.exact_match),
            ("accuracy", accuracy(&answers, &references), scores.accuracy),
            ("macro-F1", macro_f1(&answers, &references), scores.macro_f1),
            ("ROUGE-L", rouge_l(&answers, &references), scores.rouge_l),
            ("BLEU", bleu(&answers, &references), scores.bleu),
            ("JSON validity", json_validity(&answers), scores.json_validity),
        ];
        for (metric, ours, theirs) in pairs {
            let near = (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0);
            assert!(near, "{metric} of {name:?}: {ours}, and the reference has {theirs}");
        }
    }
}

#[test]
fn over_nothing_every_score_is_zero() {
    let none: &[String] = &[];
    let scores = [exact_match, accuracy, macro_f1, rouge_l, bleu].map(|score| score(none, none));
    assert!(scores.iter().all(|score| score.abs() < f64::EPSILON), "{scores:?}");
    assert!(json_validity(none).abs() < f64::EPSILON);
}

#[test]
fn a_label_is_named_whatever_stands_around_it() {
    assert_eq!(label(" **Positive**.\n"), "positive");
    assert_eq!(label("not-so-good!"), "not-so-good");
}
