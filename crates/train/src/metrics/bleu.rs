//! Corpus BLEU as sacrebleu computes it by default: one reference, the tokenizer `13a`, case kept,
//! exponential smoothing.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// Longest n-gram that is compared.
const ORDER: usize = 4;

/// BLEU from 0 to 100.
pub fn bleu(answers: &[String], references: &[String]) -> f64 {
    let mut counts = Counts::default();
    for (answer, reference) in answers.iter().zip(references) {
        counts.add(&tokenize(answer), &tokenize(reference));
    }
    counts.score()
}

/// What BLEU counts over a corpus.
#[derive(Default)]
struct Counts {
    answer_words: usize,
    reference_words: usize,
    /// For each n-gram length: n-grams of the answers that their references have as well.
    right: [usize; ORDER],
    /// For each n-gram length: n-grams of the answers.
    all: [usize; ORDER],
}

impl Counts {
    fn add(&mut self, answer: &[String], reference: &[String]) {
        self.answer_words += answer.len();
        self.reference_words += reference.len();
        for order in 1..=ORDER {
            let mut available: HashMap<&[String], usize> = HashMap::new();
            for gram in reference.windows(order) {
                *available.entry(gram).or_default() += 1;
            }
            for gram in answer.windows(order) {
                self.all[order - 1] += 1;
                if let Some(left @ 1..) = available.get_mut(gram) {
                    *left -= 1;
                    self.right[order - 1] += 1;
                }
            }
        }
    }

    fn score(&self) -> f64 {
        // Where an n-gram length does not occur at all, the geometric mean is 0.
        if self.right.iter().all(|count| *count == 0) || self.all.contains(&0) {
            return 0.0;
        }
        let mut smoothing = 1.0;
        let mut log_sum = 0.0;
        for (right, all) in self.right.iter().zip(&self.all) {
            let right = if *right > 0 {
                *right as f64
            } else {
                // Chen and Cherry 2014, method 3, as NIST's mteval-v13a has it.
                smoothing *= 2.0;
                1.0 / smoothing
            };
            log_sum += (right / *all as f64).ln();
        }
        100.0 * self.brevity_penalty() * (log_sum / ORDER as f64).exp()
    }

    fn brevity_penalty(&self) -> f64 {
        if self.answer_words >= self.reference_words {
            return 1.0;
        }
        (1.0 - self.reference_words as f64 / self.answer_words as f64).exp()
    }
}

/// NIST's mteval-v13a tokenization, as sacrebleu has it.
fn tokenize(text: &str) -> Vec<String> {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        let rule =
            |pattern: &str| Regex::new(pattern).expect("the patterns are constant and tested");
        [
            // Every ASCII symbol but `'`, `,`, `-` and `.` stands alone.
            (rule(r"([\{-~\[-` -&\(-\+:-@/])"), " $1 "),
            // A full stop or comma stands alone unless digits are on both sides.
            (rule(r"([^0-9])([.,])"), "$1 $2 "),
            (rule(r"([.,])([^0-9])"), " $1 $2"),
            // A dash stands alone after a digit.
            (rule(r"([0-9])(-)"), "$1 $2 "),
        ]
    });
    let mut line = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, letter) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        line = line.replace(entity, letter);
    }
    line = format!(" {line} ");
    for (pattern, replacement) in &*RULES {
        line = pattern.replace_all(&line, *replacement).into_owned();
    }
    line.split_whitespace().map(str::to_owned).collect()
}
