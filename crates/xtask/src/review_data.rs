//! The quickstart's data: movie review snippets with the sign of their mean human rating, as chat
//! examples. Balanced, and chosen by a hash of a seed and the snippet's id: always the same ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::fetch;

/// Examples to train on, half of each label. The workspace holds a part of them out to validate.
pub(crate) const TRAIN: usize = 1_200;
/// Examples that are only scored.
pub(crate) const TEST: usize = 200;

/// A rating nearer to zero than this is no clear opinion. Ratings go from -4 to 4.
const CLEAR: f64 = 1.0;
const SEED: &str = "anneal-quickstart-1";

#[derive(Debug, PartialEq)]
struct Snippet<'a> {
    id: &'a str,
    label: &'static str,
    text: &'a str,
}

/// Writes `train.jsonl` and `test.jsonl` into `folder`.
pub(crate) fn write(reviews: &Path, folder: &Path) -> Result<()> {
    let rows = fs::read_to_string(reviews)
        .with_context(|| format!("cannot read {}", reviews.display()))?;
    let chosen = choose(parse(&rows)?, TEST + TRAIN)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (test, train) = chosen.split_at(TEST);
    for (name, snippets) in [("train.jsonl", train), ("test.jsonl", test)] {
        let path = folder.join(name);
        let fresh = folder.join(format!(".{name}.new"));
        fs::write(&fresh, snippets.iter().map(record).collect::<String>())
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("    {}: {} examples", path.display(), snippets.len());
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Snippet<'_>>> {
    let mut snippets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut columns = line.splitn(3, '\t');
        let (Some(id), Some(rating), Some(text)) = (columns.next(), columns.next(), columns.next())
        else {
            bail!("line {} of the review snippets has fewer than three columns", index + 1);
        };
        let rating: f64 =
            rating.parse().with_context(|| format!("line {} has no rating", index + 1))?;
        if rating.abs() >= CLEAR {
            let label = if rating > 0.0 { "positive" } else { "negative" };
            snippets.push(Snippet { id, label, text: text.trim() });
        }
    }
    Ok(snippets)
}

/// `count` snippets, no text twice, labels taking turns, in an order given by the seed.
fn choose(snippets: Vec<Snippet<'_>>, count: usize) -> Result<Vec<Snippet<'_>>> {
    let by_hash: BTreeMap<String, Snippet<'_>> = snippets
        .into_iter()
        .map(|snippet| (fetch::hex(&Sha256::digest(format!("{SEED}/{}", snippet.id))), snippet))
        .collect();
    let mut seen = std::collections::HashSet::new();
    let (positive, negative): (Vec<_>, Vec<_>) = by_hash
        .into_values()
        .filter(|snippet| seen.insert(snippet.text))
        .partition(|snippet| snippet.label == "positive");
    if positive.len().min(negative.len()) < count / 2 {
        bail!("the review snippets have too few clear opinions of one kind");
    }
    Ok(positive.into_iter().zip(negative).flat_map(<[_; 2]>::from).take(count).collect())
}

fn record(snippet: &Snippet<'_>) -> String {
    let prompt = format!(
        "Is this movie review positive or negative? Answer with one word.\n\n{}",
        snippet.text
    );
    let messages = json!([
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": snippet.label},
    ]);
    format!("{}\n", json!({ "messages": messages }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const ROWS: &str = "1\t2.5\tA joy.\r\n2\t-3\tA bore.\r\n3\t0.2\tA film.\r\n4\t1.5\tA joy.\r\n5\t1.1\tFine.\r\n6\t-1\tNo.\r\n";

    #[test]
    fn unclear_ratings_and_copies_are_left_out_and_labels_take_turns() {
        let chosen = choose(parse(ROWS).unwrap(), 4).unwrap();
        let labels: Vec<_> = chosen.iter().map(|snippet| snippet.label).collect();
        assert_eq!(labels, ["positive", "negative", "positive", "negative"]);
        assert!(chosen.iter().all(|snippet| snippet.id != "3"));
        assert_eq!(chosen.iter().filter(|snippet| snippet.text == "A joy.").count(), 1);
    }

    #[test]
    fn the_choice_is_the_same_each_time_and_too_few_rows_are_told() {
        let first = choose(parse(ROWS).unwrap(), 2).unwrap();
        assert_eq!(first, choose(parse(ROWS).unwrap(), 2).unwrap());
        assert!(choose(parse(ROWS).unwrap(), 6).is_err());
    }

    #[test]
    fn a_record_is_one_line_of_chat() {
        let line = record(&Snippet { id: "1", label: "positive", text: "\"Great\"" });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["messages"][1]["content"], "positive");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
