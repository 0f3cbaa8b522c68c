//! Scores of generated answers against the right ones.
//!
//! Each is a published definition, held by a fixture against its reference implementation
//! (`tests/numerics/scripts/make_metric_fixtures.py`):
//!
//! | metric | definition | scale |
//! |---|---|---|
//! | exact match | equal after white space around both is taken off | 0 to 1 |
//! | accuracy | scikit-learn's `accuracy_score` over [labels](label) | 0 to 1 |
//! | macro-F1 | scikit-learn's `f1_score(average="macro", zero_division=0)` over the labels of the right answers | 0 to 1 |
//! | ROUGE-L | rouge-score's `rougeL` F-measure without stemming (Lin 2004), mean over examples | 0 to 1 |
//! | BLEU | sacrebleu's corpus BLEU, signature `nrefs:1, case:mixed, eff:no, tok:13a, smooth:exp` (Post 2018) | 0 to 100 |
//! | JSON validity | the share of answers that are one JSON text (RFC 8259) | 0 to 1 |
//!
//! `answers` and `references` are pairs, in the same order. Over no pairs every score is 0.

mod bleu;
mod rouge;

use std::collections::BTreeMap;

pub use bleu::bleu;
pub use rouge::rouge_l;

/// The share of answers that equal their reference, white space around both aside.
pub fn exact_match(answers: &[String], references: &[String]) -> f64 {
    share(answers, references, |answer, reference| answer.trim() == reference.trim())
}

/// The share of answers that name the right label.
pub fn accuracy(answers: &[String], references: &[String]) -> f64 {
    share(answers, references, |answer, reference| label(answer) == label(reference))
}

/// The mean of the F1 scores of all labels that occur among the references.
///
/// A label that is only ever answered has no score of its own, but each such answer is a miss for
/// the right label: free text would otherwise add a class for each phrase.
pub fn macro_f1(answers: &[String], references: &[String]) -> f64 {
    #[derive(Default)]
    struct Counts {
        right: u64,
        answered: u64,
        present: u64,
    }
    let mut classes: BTreeMap<String, Counts> = BTreeMap::new();
    for reference in references {
        classes.entry(label(reference)).or_default().present += 1;
    }
    for (answer, reference) in answers.iter().zip(references) {
        let (answer, reference) = (label(answer), label(reference));
        if let Some(class) = classes.get_mut(&answer) {
            class.answered += 1;
            class.right += u64::from(answer == reference);
        }
    }
    // F1 is 2 tp / (2 tp + fp + fn), and what stands below is at least 1 for a label that occurs.
    let scores = classes
        .values()
        .map(|class| 2.0 * class.right as f64 / (class.answered + class.present) as f64);
    mean(scores)
}

/// The share of answers that are valid JSON, white space around them aside.
pub fn json_validity(answers: &[String]) -> f64 {
    mean(answers.iter().map(|answer| {
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(answer.trim());
        f64::from(u8::from(parsed.is_ok()))
    }))
}

/// An answer as a label: in lower case, without white space and ASCII punctuation around it.
pub fn label(answer: &str) -> String {
    let around = |letter: char| letter.is_whitespace() || letter.is_ascii_punctuation();
    answer.trim_matches(around).to_lowercase()
}

fn share(answers: &[String], references: &[String], is_right: impl Fn(&str, &str) -> bool) -> f64 {
    let pairs = answers.iter().zip(references);
    mean(pairs.map(|(answer, reference)| f64::from(u8::from(is_right(answer, reference)))))
}

fn mean(scores: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = scores.len();
    if count == 0 { 0.0 } else { scores.sum::<f64>() / count as f64 }
}

#[cfg(test)]
mod tests;
