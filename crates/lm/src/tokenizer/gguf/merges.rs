//! The merges of a BPE vocabulary: those of the file, or those that the vocabulary itself implies.

use std::collections::HashMap;

/// The two halves of each line `left right`.
pub(super) fn parse(lines: &[String]) -> Result<Vec<(String, String)>, String> {
    lines
        .iter()
        .map(|line| match line.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(format!("the merge `{line}` has no space")),
        })
        .collect()
}

/// Every way to cut a token into two others, best score first; among equals, longer halves first, then
/// the order of the vocabulary.
pub(super) fn derive(tokens: &[String], scores: &[f64]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(index, token)| (token.as_str(), index)).collect();
    let mut found: Vec<Cut<'_>> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        // A token that occurs twice counts once, with its last score.
        if ids.get(token.as_str()) != Some(&index) {
            continue;
        }
        let score = scores.get(index).copied().unwrap_or_default();
        let first = found.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                let lengths = (left.chars().count(), right.chars().count());
                found.push(Cut { left, right, ids: (left_id, right_id), score, lengths });
            }
        }
        found[first..].sort_by_key(|cut| cut.ids);
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.lengths.cmp(&a.lengths)));
    found.into_iter().map(|cut| (cut.left.to_owned(), cut.right.to_owned())).collect()
}

struct Cut<'a> {
    left: &'a str,
    right: &'a str,
    ids: (usize, usize),
    score: f64,
    /// Characters of the halves.
    lengths: (usize, usize),
}
