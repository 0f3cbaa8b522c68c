//! Whether a tuned model is what `evaluation.gate` asks for: from the scores that the trainer tells.

use api::workspace::{GateMetric, GateSpec, GateStatus, Score};

/// Differences of decimal numbers are not exact: 0.6 − 0.5 is below 0.1.
const ROUNDING: f64 = 1e-9;

/// Holds the scores of a run against its gate. What was not scored has not passed.
pub fn judge(gate: &GateSpec, scores: &[Score]) -> GateStatus {
    let metric = gate.metric;
    // So many digits survive every reader and writer of JSON, and a status of the same meaning is the same.
    let rounded = |value: f64| (value * 1e6).round() / 1e6;
    let score = scores.iter().find(|score| score.metric == metric.score());
    let tuned = score.map(|score| rounded(score.tuned)).filter(|value| value.is_finite());
    let base = score.and_then(|score| score.base).map(rounded).filter(|value| value.is_finite());
    let passed = tuned.is_some_and(|tuned| passes(gate, base, tuned));
    let message = match (tuned, base) {
        (Some(tuned), Some(base)) => {
            format!("{metric} is {tuned}, the base model's {base}; asked for: {}", asked(gate))
        }
        (Some(tuned), None) => format!("{metric} is {tuned}; asked for: {}", asked(gate)),
        (None, _) => {
            format!("{metric} was not scored in this run; asked for: {}", asked(gate))
        }
    };
    GateStatus { metric, passed, base, tuned, message }
}

fn passes(gate: &GateSpec, base: Option<f64>, tuned: f64) -> bool {
    let improvement =
        base.map(|base| if gate.metric.lower_is_better() { base - tuned } else { tuned - base });
    let enough = match gate.min_improvement {
        Some(least) => improvement.is_some_and(|by| by >= least - ROUNDING),
        None if has_bound(gate) => true,
        None => improvement.is_some_and(|by| by > 0.0),
    };
    enough
        && gate.at_least.is_none_or(|least| tuned >= least - ROUNDING)
        && gate.at_most.is_none_or(|most| tuned <= most + ROUNDING)
}

fn has_bound(gate: &GateSpec) -> bool {
    gate.at_least.is_some() || gate.at_most.is_some()
}

/// What is asked for, as in `at least 0.9 and 0.05 better than the base model`.
fn asked(gate: &GateSpec) -> String {
    let better = match gate.min_improvement {
        Some(0.0) => Some("no worse than the base model".to_owned()),
        Some(by) => Some(format!("at least {by} better than the base model")),
        None if has_bound(gate) => None,
        None => Some("better than the base model".to_owned()),
    };
    let bounds = [
        gate.at_least.map(|least| format!("at least {least}")),
        gate.at_most.map(|most| format!("at most {most}")),
        better,
    ];
    bounds.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

/// The metric that answers are to be scored by for the gate's sake.
pub(crate) fn of_answers(gate: Option<&GateSpec>) -> Option<api::run_spec::Metric> {
    gate.map(|gate| gate.metric).and_then(GateMetric::of_answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(metric: GateMetric) -> GateSpec {
        GateSpec { metric, at_least: None, at_most: None, min_improvement: None }
    }

    fn judged(gate: GateSpec, base: f64, tuned: f64) -> (bool, String) {
        let metric = gate.metric.score().to_owned();
        let status = judge(&gate, &[Score { metric, base: Some(base), tuned }]);
        (status.passed, status.message)
    }

    #[test]
    fn without_bounds_it_must_be_better() {
        let accuracy = gate(GateMetric::Accuracy);
        assert!(judged(accuracy, 0.5, 0.51).0);
        let (passed, message) = judged(accuracy, 0.5, 0.5);
        assert!(!passed);
        let expected =
            "Accuracy is 0.5, the base model's 0.5; asked for: better than the base model";
        assert_eq!(message, expected);
        assert!(judged(gate(GateMetric::Loss), 2.0, 1.5).0);
        assert!(!judged(gate(GateMetric::Loss), 1.5, 2.0).0);
    }

    #[test]
    fn every_bound_counts() {
        let both = GateSpec {
            at_least: Some(0.6),
            min_improvement: Some(0.1),
            ..gate(GateMetric::MacroF1)
        };
        assert!(judged(both, 0.5, 0.6).0, "0.6 − 0.5 is 0.1 here");
        assert!(!judged(both, 0.45, 0.59).0);
        let (passed, message) = judged(both, 0.55, 0.6);
        assert!(!passed);
        let asked = "asked for: at least 0.6 and at least 0.1 better than the base model";
        assert!(message.ends_with(asked), "{message}");
        let loss = GateSpec { at_most: Some(0.5), ..gate(GateMetric::Loss) };
        assert!(judged(loss, 0.3, 0.5).0, "worse than the base model, which nobody asked for");
        assert!(!judged(loss, 2.0, 0.51).0);
        let no_worse = GateSpec { min_improvement: Some(0.0), ..gate(GateMetric::Bleu) };
        assert!(judged(no_worse, 31.5, 31.5).0);
    }

    #[test]
    fn what_was_not_scored_has_not_passed() {
        let status = judge(&gate(GateMetric::Bleu), &[]);
        assert!(!status.passed && status.tuned.is_none());
        assert!(status.message.starts_with("Bleu was not scored in this run"), "{status:?}");
        let of_none = Score { metric: "bleu".to_owned(), base: None, tuned: 30.0 };
        assert!(!judge(&gate(GateMetric::Bleu), std::slice::from_ref(&of_none)).passed);
        let not_finite = Score { tuned: f64::NAN, base: Some(1.0), ..of_none };
        assert_eq!(judge(&gate(GateMetric::Bleu), &[not_finite]).tuned, None);
    }
}
