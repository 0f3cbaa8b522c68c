//! ROUGE-L as the Python package rouge-score defines it, with its tokenizer and no stemmer.

/// The mean over all pairs of the F-measure of the longest common subsequence of words.
pub fn rouge_l(answers: &[String], references: &[String]) -> f64 {
    let pairs = answers.iter().zip(references);
    super::mean(pairs.map(|(answer, reference)| f_measure(&words(answer), &words(reference))))
}

/// Runs of ASCII letters and digits, in lower case.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn f_measure(answer: &[String], reference: &[String]) -> f64 {
    let common = longest_common_subsequence(answer, reference) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let precision = common / answer.len() as f64;
    let recall = common / reference.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// Its length, by the usual table, of which one row is kept.
fn longest_common_subsequence(one: &[String], other: &[String]) -> usize {
    let mut row = vec![0; other.len() + 1];
    for word in one {
        let mut diagonal = 0;
        for (column, candidate) in other.iter().enumerate() {
            let above = row[column + 1];
            row[column + 1] = if word == candidate { diagonal + 1 } else { above.max(row[column]) };
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}
