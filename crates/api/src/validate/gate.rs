//! Rules of `evaluation.gate`.

use super::Faults;
use crate::run_spec::{Format, Metric};
use crate::workspace::{EvaluationSpec, FineTuneWorkspaceSpec, GateMetric, GateSpec};

const FIELD: &str = "spec.evaluation.gate";

/// The gate, with a fault for what it can never be held against.
pub(super) fn gate(
    spec: &FineTuneWorkspaceSpec,
    evaluation: &EvaluationSpec,
    faults: &mut Faults,
) -> Option<GateSpec> {
    let gate = evaluation.gate?;
    bounds(&gate, faults);
    match gate.metric.of_answers() {
        None if spec.data.test.is_none() && spec.data.validation.is_none() => faults.add(
            FIELD,
            "there are no held-out examples to score",
            "add `data.test` or `data.validation`, such as `{fraction: 0.1}`, or remove the gate",
        ),
        None => {}
        Some(metric) => of_answers(spec, evaluation, metric, faults),
    }
    Some(gate)
}

fn bounds(gate: &GateSpec, faults: &mut Faults) {
    let is_loss = gate.metric == GateMetric::Loss;
    if is_loss && gate.at_least.is_some() {
        let hint = "use `atMost`: a loss is the better the lower it is";
        faults.add(&format!("{FIELD}.atLeast"), "has no meaning with `metric: Loss`", hint);
    } else if gate.at_least.is_some_and(|least| least > 1.0) && gate.metric != GateMetric::Bleu {
        let hint = "write 0.9 for 90 %";
        let message = format!("{} is a share, and at most 1", gate.metric);
        faults.add(&format!("{FIELD}.atLeast"), message, hint);
    }
    if !is_loss && gate.at_most.is_some() {
        let message = format!("has no meaning with `metric: {}`", gate.metric);
        faults.add(&format!("{FIELD}.atMost"), message, "use `atLeast`");
    }
}

fn of_answers(
    spec: &FineTuneWorkspaceSpec,
    evaluation: &EvaluationSpec,
    metric: Metric,
    faults: &mut Faults,
) {
    let has_labels = !spec.data.labels.is_empty();
    if spec.data.test.is_none() {
        let hint = "add `data.test`, such as `{fraction: 0.1}`, or use `metric: Loss`";
        faults.add(FIELD, "there are no test examples to answer", hint);
    } else if spec.data.format == Format::Text {
        let hint = "plain text has no answer to compare: use `metric: Loss`";
        faults.add(FIELD, format!("`{metric:?}` has no meaning with `format: Text`"), hint);
    } else if evaluation.metrics.as_ref().is_some_and(|metrics| !metrics.contains(&metric)) {
        let hint = "add it there, or remove `metrics` to have it computed";
        faults.add(FIELD, format!("`{metric:?}` is not among evaluation.metrics"), hint);
    } else if matches!(metric, Metric::Accuracy | Metric::MacroF1)
        && !has_labels
        // Said of the metrics already.
        && evaluation.metrics.is_none()
    {
        let hint = "name the possible answers in `data.labels`, or use ExactMatch";
        faults.add(FIELD, format!("`{metric:?}` needs a closed set of answers"), hint);
    }
}
