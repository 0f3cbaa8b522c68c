//! The parts of the page, in the order in which they appear.

use std::fmt::Write as _;

use api::run_spec::Adapter;
use serde_json::Value;

use super::chart::{Chart, Series, smoothed};
use super::text::{duration, escape, number, percent, short, thousands};
use super::{Report, Story};
use crate::event::{Comparison, Split, Step};

/// Title, one sentence, and the figures that matter most.
pub(super) fn head(report: &Report<'_>, story: &Story<'_>) -> String {
    let spec = report.spec;
    let what = match &spec.adapter {
        Adapter::Lora(lora) => format!("LoRA adapter of rank {}", lora.rank),
        Adapter::Full => "Full fine-tuning".to_owned(),
    };
    let mut html = format!(
        "<h1>{}</h1>\n<p class=soft>{what} on <code>{}</code>, revision {}</p>\n",
        escape(&spec.name),
        escape(&spec.base_model.reference),
        escape(&spec.revision),
    );
    let cards = cards(story);
    if !cards.is_empty() {
        html.push_str("<div class=cards>");
        for (value, label) in cards {
            let (value, label) = (escape(&value), escape(&label));
            let _ = write!(html, "<div class=card><b>{value}</b><span>{label}</span></div>");
        }
        html.push_str("</div>\n");
    }
    html
}

fn cards(story: &Story<'_>) -> Vec<(String, String)> {
    let mut cards = Vec::new();
    let task = story.compared.iter().flat_map(|compared| &compared.rows);
    let chosen = task.clone().find(|row| !is_general(row)).into_iter();
    for row in chosen.chain(task.filter(|row| row.metric == "loss").take(1)) {
        let (base, tuned) = (shown(row, row.base), shown(row, row.tuned));
        cards.push((format!("{base} → {tuned}"), format!("{}, base → tuned", row.title())));
    }
    if let Some(finished) = story.finished {
        cards.push((duration(finished.training_seconds), "of training".to_owned()));
        cards.push((short(finished.tokens_per_second), "tokens per second".to_owned()));
    }
    if let Some(started) = story.started {
        let share = started.trainable_parameters as f64 / started.parameters.max(1) as f64;
        let label = format!("trained parameters, {}", percent(share));
        cards.push((short(started.trainable_parameters as f64), label));
    }
    cards
}

/// Base against tuned.
pub(super) fn comparison(story: &Story<'_>) -> String {
    let Some(compared) = story.compared else { return String::new() };
    let split = match compared.split {
        Split::Train => "training",
        Split::Validation => "validation",
        Split::Test => "test",
    };
    let examples = thousands(compared.examples as i64);
    let plural = if compared.examples == 1 { "" } else { "s" };
    let mut html = format!(
        "<h2>Base against tuned: {examples} {split} example{plural}</h2>\n<div class=panel><table>\
         <thead><tr><th>Score<th class=num>Base<th class=num>Tuned<th class=num>Change<th>\
         </thead>\n"
    );
    compared.rows.iter().for_each(|row| html.push_str(&comparison_row(row)));
    html.push_str("</table></div>\n");
    if compared.answered > 0 && compared.answered < compared.examples {
        let answered = thousands(compared.answered as i64);
        let _ = writeln!(html, "<p class=soft>Answers were generated for {answered} of them.</p>");
    }
    html
}

fn comparison_row(row: &Comparison) -> String {
    let gain = if row.higher_is_better { row.tuned - row.base } else { row.base - row.tuned };
    let class = match gain {
        gain if gain > 0.0 => "better",
        gain if gain < 0.0 => "worse",
        _ => "",
    };
    let change = row.tuned - row.base;
    let sign = if change > 0.0 { "+" } else { "" };
    let change = if row.is_share() {
        format!("{sign}{:.1} points", change * 100.0)
    } else {
        format!("{sign}{}", number(change))
    };
    let largest = row.base.max(row.tuned).max(if row.is_share() { 1.0 } else { 1e-12 });
    let width = |value: f64| (value / largest * 100.0).clamp(0.0, 100.0);
    format!(
        "<tr><th>{}<td class=num>{}<td class=num>{}<td class=\"num {class}\">{change}\
         <td class=bars><span class=bar style=\"width:{:.1}%\"></span>\
         <span class=\"bar tuned\" style=\"width:{:.1}%\"></span>\n",
        escape(row.title()),
        shown(row, row.base),
        shown(row, row.tuned),
        width(row.base),
        width(row.tuned),
    )
}

/// Loss, learning rate, speed and gradient norm over the steps.
pub(super) fn curves(story: &Story<'_>) -> String {
    let over = |value: fn(&Step) -> f64| -> Vec<(f64, f64)> {
        story.steps.iter().map(|step| (step.step as f64, value(step))).collect()
    };
    let losses = over(|step| step.loss);
    let mean = smoothed(&losses);
    let validated = story.validations.clone();
    let line = |name, class, points| Series { name, class, points, dots: false };
    let loss = Chart {
        title: "Loss",
        unit: "step",
        from_zero: false,
        series: vec![
            line("", "raw", losses),
            line("training, smoothed", "train", mean),
            Series { name: "validation", class: "valid", points: validated, dots: true },
        ],
    };
    let single = |title, value, from_zero| Chart {
        title,
        unit: "step",
        from_zero,
        series: vec![line("", "tuned", over(value))],
    };
    let charts: String = [
        loss.render(),
        single("Learning rate", |step| step.learning_rate, true).render(),
        single("Tokens per second", |step| step.tokens_per_second, true).render(),
        single("Gradient norm", |step| step.grad_norm, true).render(),
    ]
    .concat();
    if charts.is_empty() {
        return charts;
    }
    format!("<h2>Training</h2>\n<div class=charts>{charts}</div>\n")
}

/// What both models answered.
pub(super) fn samples(story: &Story<'_>) -> String {
    if story.samples.is_empty() {
        return String::new();
    }
    let mut html = "<h2>Sample answers</h2>\n".to_owned();
    for sample in story.samples {
        let _ = write!(
            html,
            "<section class=sample><p class=label>Prompt</p><p>{}</p><div class=answers>",
            escape(sample.prompt.trim())
        );
        let answers = [
            ("base", "Base", &sample.base),
            ("tuned", "Tuned", &sample.tuned),
            ("", "Expected", &sample.reference),
        ];
        for (class, title, answer) in answers.iter().filter(|answer| !answer.2.trim().is_empty()) {
            let answer = escape(answer.trim());
            let _ =
                write!(html, "<div class=\"{class}\"><h3>{title}</h3><pre>{answer}</pre></div>");
        }
        html.push_str("</div></section>\n");
    }
    html
}

/// Every hyperparameter, with the reason where it was chosen for the user.
pub(super) fn hyperparameters(report: &Report<'_>) -> String {
    let mut rows = Vec::new();
    if let Adapter::Lora(lora) = &report.spec.adapter {
        rows.extend(fields(lora));
    }
    rows.extend(fields(&report.spec.training));
    let reason = |name: &str| {
        let found = report.reasons.iter().find(|reason| reason.name == name);
        found.map_or("", |reason| reason.reason.as_str())
    };
    let with_reasons = !report.reasons.is_empty();
    let mut html = "<h2>Hyperparameters</h2>\n<div class=panel><table class=list>\n".to_owned();
    for (name, value) in rows {
        let _ = write!(html, "<tr><th>{}<td class=value>{}", escape(&name), escape(&value));
        if with_reasons {
            let _ = write!(html, "<td class=soft>{}", escape(reason(&name)));
        }
        html.push('\n');
    }
    html.push_str("</table></div>\n");
    html
}

/// The result, and how to use it.
pub(super) fn adapter(report: &Report<'_>, story: &Story<'_>) -> String {
    let Some(finished) = story.finished else { return String::new() };
    let mut rows = vec![("folder", finished.adapter.display().to_string())];
    if let Some(published) = report.published {
        rows.push(("image", published.to_owned()));
    }
    rows.push(("digest of the files", finished.adapter_digest.clone()));
    rows.push(("weights of step", format!("{} of {}", finished.best_step, finished.steps)));
    if let Some(started) = story.started {
        let digest = started.base_model_digest.as_ref();
        let digest = digest.map(|digest| format!(" ({digest})")).unwrap_or_default();
        rows.push(("base model", format!("{}{digest}", started.base_model)));
        let (train, held) = (started.train_examples, started.validation_examples);
        let test = started.test_examples;
        let counts = format!("{train} training, {held} validation, {test} test");
        rows.push(("examples", counts));
    }
    rows.push(("tokens trained on", thousands(finished.tokens as i64)));
    rows.push((
        "peak memory",
        format!("{} MB", thousands((finished.peak_memory / 1_000_000) as i64)),
    ));
    let mut html = "<h2>Result</h2>\n<div class=panel><table class=list>\n".to_owned();
    for (name, value) in rows {
        let (name, value) = (escape(name), escape(&value));
        let _ = writeln!(html, "<tr><th>{name}<td class=value>{value}");
    }
    html.push_str("</table></div>\n");
    html
}

/// Warnings, resumptions and how it ended.
pub(super) fn notes(story: &Story<'_>) -> String {
    if story.notes.is_empty() {
        return String::new();
    }
    let mut html = "<h2>Notes</h2>\n<ul>\n".to_owned();
    for note in &story.notes {
        let _ = writeln!(html, "<li>{}", escape(note));
    }
    html.push_str("</ul>\n");
    html
}

/// Scores that every run has, beside those of the task.
fn is_general(row: &Comparison) -> bool {
    row.metric == "loss" || row.metric == "tokenAccuracy"
}

fn shown(row: &Comparison, value: f64) -> String {
    if row.is_share() { percent(value) } else { number(value) }
}

/// Field names and values of a part of the run specification.
fn fields<T: serde::Serialize>(part: &T) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(part) else { return Vec::new() };
    fields.into_iter().map(|(name, value)| (name, plain(&value))).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Number(value) => value.as_f64().map_or_else(|| value.to_string(), exact),
        Value::Bool(on) => if *on { "yes" } else { "no" }.to_owned(),
        Value::Null | Value::Object(_) => value.to_string(),
    }
}

/// A hyperparameter is shown as it is, but for digits that nobody set.
fn exact(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:e}");
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
