//! The end of a run: base against tuned, three prompts answered by both, where the adapter is, and
//! what to try next.

use std::path::PathBuf;

use api::workspace::GateStatus;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use train::Outcome;
use train::event::{Compared, Sample, Split};

use super::format;
use crate::say::say;

/// Prompts shown at the end.
const SAMPLES: usize = 3;
/// Columns of the table of prompts: what README pages and most terminals hold.
const TABLE_WIDTH: u16 = 100;
/// Characters of a prompt or an answer that are shown.
const SAMPLE_WIDTH: usize = 300;

/// Where the adapter was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) reference: String,
    pub(crate) digest: String,
}

/// Prints all of it.
pub(crate) fn print(outcome: &Outcome, published: &Published, gate: Option<&GateStatus>) {
    let dir = &outcome.dir;
    if let Some(compared) = &outcome.compared {
        say!("\n{}", comparison(compared));
    }
    if !outcome.samples.is_empty() {
        say!("\n{}", samples(&outcome.samples));
    }
    let finished = &outcome.finished;
    say!(
        "\ntrained {} steps, {} tokens in {} ({} tokens/s), peak memory {}",
        format::count(finished.steps),
        format::count(finished.tokens),
        format::seconds(finished.training_seconds),
        format::count(finished.tokens_per_second.round() as u64),
        format::bytes(finished.peak_memory),
    );
    say!("adapter  {}", published.reference);
    say!("digest   {}", published.digest);
    if let Some(gate) = gate {
        say!("gate     {}", verdict(gate));
    }
    let report = dir.join("report.html");
    if report.is_file() {
        say!("report   {}", report.display());
    }
    next(outcome, published);
}

/// What `evaluation.gate` says.
fn verdict(gate: &GateStatus) -> String {
    format!("{}: {}", if gate.passed { "passed" } else { "failed" }, gate.message)
}

/// Commands worth trying now.
fn next(outcome: &Outcome, published: &Published) {
    let dir = outcome.dir.display();
    let prompt = outcome.samples.first().map_or("Hello", |sample| sample.prompt.as_str());
    say!("\nnext:");
    let prompt = format::shorten(prompt, 120);
    let anneal = program();
    say!("  {anneal} generate --adapter {dir} --prompt {}", quoted(&prompt));
    say!("  {anneal} push {dir} registry.example.com/team/name:tag");
    say!("  {anneal} pull {} ./adapter", published.reference);
}

/// This program as it can be typed here: as it was, or relative to the current folder.
fn program() -> String {
    let typed = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    let shown = typed.strip_prefix(&here).unwrap_or(&typed);
    shown.display().to_string()
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Base against tuned.
fn comparison(compared: &Compared) -> Table {
    let name = match compared.split {
        Split::Train => "training",
        Split::Validation => "validation",
        Split::Test => "test",
    };
    let mut table = table();
    table.set_header([
        Cell::new(format!("{} {name} examples", format::count(compared.examples))),
        right("base"),
        right("tuned"),
        right(""),
    ]);
    for row in &compared.rows {
        let better = if row.higher_is_better { row.tuned > row.base } else { row.tuned < row.base };
        let verdict = match () {
            () if better => "better",
            () if row.tuned.total_cmp(&row.base).is_eq() => "same",
            () => "worse",
        };
        table.add_row([
            Cell::new(title(&row.metric)),
            right(&value(&row.metric, row.base)),
            right(&value(&row.metric, row.tuned)),
            Cell::new(verdict),
        ]);
    }
    table
}

fn samples(samples: &[Sample]) -> Table {
    let mut table = table();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(TABLE_WIDTH);
    table.set_header(["prompt", "expected", "base", "tuned"]);
    for sample in samples.iter().take(SAMPLES) {
        let texts = [&sample.prompt, &sample.reference, &sample.base, &sample.tuned];
        table.add_row(texts.map(|text| format::shorten(text, SAMPLE_WIDTH)));
    }
    table
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table
}

fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn title(metric: &str) -> &str {
    match metric {
        "tokenAccuracy" => "token accuracy",
        "exactMatch" => "exact match",
        "macroF1" => "macro-F1",
        "rougeL" => "ROUGE-L",
        "bleu" => "BLEU",
        "jsonValidity" => "valid JSON",
        other => other,
    }
}

/// A share in per cent; losses and BLEU, which has a scale of its own, as they are.
fn value(metric: &str, value: f64) -> String {
    match metric {
        "loss" => format!("{value:.4}"),
        "bleu" => format!("{value:.1}"),
        _ => format!("{:.1} %", value * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use train::event::Comparison;

    #[test]
    fn a_comparison_says_what_got_better() {
        let row = |metric: &str, base, tuned, higher_is_better| Comparison {
            metric: metric.to_owned(),
            base,
            tuned,
            higher_is_better,
        };
        let rows = vec![row("loss", 3.25, 0.4, false), row("accuracy", 0.5, 0.5, true)];
        let compared = Compared { split: Split::Test, examples: 200, answered: 200, rows };
        insta::assert_snapshot!(comparison(&compared).to_string());
    }

    #[test]
    fn a_prompt_is_quoted_for_the_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
