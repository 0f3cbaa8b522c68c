//! Rules of the data and of what is scored on it.

use std::collections::BTreeSet;

use super::Faults;
use crate::names::ImageReference;
use crate::run_spec::{Columns, Format, Metric, PromptTemplate};
use crate::valid::{Data, DataSource, Evaluation, HeldOut};
use crate::workspace::{self, DataSpec, FineTuneWorkspaceSpec};

pub(super) fn data(raw: &DataSpec, faults: &mut Faults) -> Option<Data> {
    let train = source(&raw.train, "spec.data.train", faults);
    let validation = held_out(raw.validation.as_ref(), "spec.data.validation", faults);
    let test = held_out(raw.test.as_ref(), "spec.data.test", faults);
    fractions(raw, faults);
    format_rules(raw, faults);
    labels(raw, faults);
    let columns = raw.columns.clone().unwrap_or_default();
    Some(Data {
        train: train?,
        validation: validation?,
        test: test?,
        format: raw.format,
        columns: Columns {
            messages: columns.messages,
            prompt: columns.prompt,
            completion: columns.completion,
            text: columns.text,
        },
        template: raw
            .template
            .clone()
            .map(|t| PromptTemplate { prompt: t.prompt, completion: t.completion }),
        system: raw.system.clone(),
        labels: raw.labels.clone(),
        overlong: raw.overlong,
        duplicates: raw.duplicates,
    })
}

fn source(raw: &workspace::DataSource, field: &str, faults: &mut Faults) -> Option<DataSource> {
    faults.one_of(
        field,
        &[
            ("path", raw.path.is_some()),
            ("paths", raw.paths.is_some()),
            ("image", raw.image.is_some()),
        ],
    );
    any_source(raw.path.as_deref(), raw.paths.as_deref(), raw.image.as_deref(), field, faults)
}

fn any_source(
    path: Option<&str>,
    paths: Option<&[String]>,
    image: Option<&str>,
    field: &str,
    faults: &mut Faults,
) -> Option<DataSource> {
    if let Some(path) = path {
        return Some(DataSource::Paths(vec![faults.path(&format!("{field}.path"), path)?]));
    }
    if let Some(paths) = paths {
        let paths: Vec<_> = paths
            .iter()
            .enumerate()
            .filter_map(|(index, path)| faults.path(&format!("{field}.paths[{index}]"), path))
            .collect();
        return (!paths.is_empty()).then_some(DataSource::Paths(paths));
    }
    faults.name(&format!("{field}.image"), ImageReference::parse(image?)).map(DataSource::Image)
}

fn held_out(
    raw: Option<&workspace::HeldOutSource>,
    field: &str,
    faults: &mut Faults,
) -> Option<HeldOut> {
    let Some(raw) = raw else { return Some(HeldOut::None) };
    faults.one_of(
        field,
        &[
            ("fraction", raw.fraction.is_some()),
            ("path", raw.path.is_some()),
            ("paths", raw.paths.is_some()),
            ("image", raw.image.is_some()),
        ],
    );
    if let Some(fraction) = raw.fraction {
        if [0.0, 1.0].contains(&fraction) {
            let hint =
                "write 0.1 for a tenth of the training examples, or remove it to hold out none";
            faults.add(&format!("{field}.fraction"), "must be above 0 and below 1", hint);
            return None;
        }
        return Some(HeldOut::Fraction(fraction));
    }
    let source =
        any_source(raw.path.as_deref(), raw.paths.as_deref(), raw.image.as_deref(), field, faults);
    source.map(HeldOut::Source)
}

fn fractions(raw: &DataSpec, faults: &mut Faults) {
    let fraction = |held_out: &Option<workspace::HeldOutSource>| {
        held_out.as_ref().and_then(|held_out| held_out.fraction).unwrap_or(0.0)
    };
    let sum = fraction(&raw.validation) + fraction(&raw.test);
    let each_is_sound = fraction(&raw.validation) < 1.0 && fraction(&raw.test) < 1.0;
    if each_is_sound && sum >= 1.0 {
        let hint = "lower data.validation.fraction or data.test.fraction";
        faults.add(
            "spec.data.validation.fraction",
            format!("validation and test take {sum} of the examples, and none are left"),
            hint,
        );
    }
}

/// Rules between the format and the settings that only some formats know.
fn format_rules(raw: &DataSpec, faults: &mut Faults) {
    let columns = raw.columns.clone().unwrap_or_default();
    let foreign: &[(&str, bool)] = match raw.format {
        Format::Auto => &[],
        Format::Chat => &[
            ("columns.prompt", columns.prompt.is_some()),
            ("columns.completion", columns.completion.is_some()),
            ("columns.text", columns.text.is_some()),
            ("template", raw.template.is_some()),
        ],
        Format::Completion => &[
            ("columns.messages", columns.messages.is_some()),
            ("columns.text", columns.text.is_some()),
        ],
        Format::Text => &[
            ("columns.messages", columns.messages.is_some()),
            ("columns.prompt", columns.prompt.is_some()),
            ("columns.completion", columns.completion.is_some()),
            ("template", raw.template.is_some()),
            ("system", raw.system.is_some()),
            ("labels", !raw.labels.is_empty()),
        ],
    };
    for (name, _) in foreign.iter().filter(|(_, set)| *set) {
        let message = format!("has no meaning with `format: {:?}`", raw.format);
        faults.add(&format!("spec.data.{name}"), message, "remove it, or change spec.data.format");
    }
    if raw.template.is_some() && raw.format != Format::Chat && raw.format != Format::Text {
        let set =
            [("prompt", columns.prompt.is_some()), ("completion", columns.completion.is_some())];
        for (name, _) in set.iter().filter(|(_, set)| *set) {
            let message = format!("has no meaning beside template, which builds the {name} itself");
            faults.add(
                &format!("spec.data.columns.{name}"),
                message,
                "use the column in spec.data.template",
            );
        }
    }
}

fn labels(raw: &DataSpec, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, label) in raw.labels.iter().enumerate() {
        let field = format!("spec.data.labels[{index}]");
        if label.trim().is_empty() {
            faults.add(&field, "the label is empty", "name the answer that the model is to give");
        } else if !seen.insert(label) {
            faults.add(&field, format!("`{label}` is named twice"), "name each label once");
        }
    }
    if raw.labels.len() == 1 {
        faults.add(
            "spec.data.labels",
            "one label leaves nothing to decide",
            "name all answers, or remove labels",
        );
    }
}

pub(super) fn evaluation(spec: &FineTuneWorkspaceSpec, faults: &mut Faults) -> Evaluation {
    let raw = spec.evaluation.clone().unwrap_or_default();
    let has = |held_out: &Option<workspace::HeldOutSource>| held_out.is_some();
    if raw.every_steps.is_some() && !has(&spec.data.validation) {
        let hint = "add `data.validation`, such as `{fraction: 0.1}`, or remove it";
        faults.add("spec.evaluation.everySteps", "there are no validation examples to score", hint);
    }
    let generation = [
        ("metrics", raw.metrics.as_ref().is_some_and(|metrics| !metrics.is_empty())),
        ("maxNewTokens", raw.max_new_tokens.is_some()),
        ("maxExamples", raw.max_examples.is_some()),
    ];
    if !has(&spec.data.test) {
        for (name, _) in generation.iter().filter(|(_, set)| *set) {
            let hint = "add `data.test`, such as `{fraction: 0.1}`, or remove it";
            faults.add(
                &format!("spec.evaluation.{name}"),
                "there are no test examples to answer",
                hint,
            );
        }
    }
    metrics(spec, raw.metrics.as_deref().unwrap_or_default(), faults);
    let gate = super::gate::gate(spec, &raw, faults);
    Evaluation {
        every_steps: raw.every_steps,
        metrics: raw.metrics,
        max_new_tokens: raw.max_new_tokens,
        max_examples: raw.max_examples,
        gate,
    }
}

fn metrics(spec: &FineTuneWorkspaceSpec, metrics: &[Metric], faults: &mut Faults) {
    for (index, metric) in metrics.iter().enumerate() {
        let field = format!("spec.evaluation.metrics[{index}]");
        if metrics[..index].contains(metric) {
            faults.add(&field, format!("`{metric:?}` is named twice"), "name each metric once");
        } else if matches!(metric, Metric::Accuracy | Metric::MacroF1)
            && spec.data.labels.is_empty()
        {
            let hint = "name the possible answers in `data.labels`, or use ExactMatch";
            faults.add(&field, format!("`{metric:?}` needs a closed set of answers"), hint);
        } else if spec.data.format == Format::Text {
            let hint = "plain text has no answer to compare: remove metrics";
            faults.add(&field, format!("`{metric:?}` has no meaning with `format: Text`"), hint);
        }
    }
}
