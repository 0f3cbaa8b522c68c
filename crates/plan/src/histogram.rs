//! How long the examples are, in a few buckets.

use api::SplitFacts;
use serde::Serialize;

/// Examples of a length from `from` to `to` tokens, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    pub from: u64,
    pub to: u64,
    pub examples: u64,
}

/// Buckets of equal width over the lengths of a split, at most `most` of them. The facts may hold
/// quantiles in place of every length; each then stands for as many examples.
pub fn histogram(split: &SplitFacts, most: usize) -> Vec<Bucket> {
    let (Some(shortest), Some(longest)) = (split.lengths.iter().min(), split.lengths.iter().max())
    else {
        return Vec::new();
    };
    let (shortest, longest) = (u64::from(*shortest), u64::from(*longest));
    let width = (longest - shortest + 1).div_ceil(most.max(1) as u64).max(1);
    let count = (longest - shortest) / width + 1;
    let mut seen = vec![0u64; count as usize];
    for length in &split.lengths {
        seen[((u64::from(*length) - shortest) / width) as usize] += 1;
    }
    let share = split.examples as f64 / split.lengths.len() as f64;
    (0..count)
        .zip(seen)
        .map(|(index, seen)| {
            let from = shortest + index * width;
            let to = (from + width - 1).min(longest);
            Bucket { from, to, examples: (seen as f64 * share).round() as u64 }
        })
        .collect()
}
