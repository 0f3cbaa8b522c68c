//! What a tuned model must reach before servers take it up.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metric;

/// What the tuned model must reach. One that does not is published all the same; a `ModelServer` that follows
/// the workspace goes on with the newest revision that did.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateSpec {
    /// The score that counts: `Loss` or `TokenAccuracy` (need `data.test` or `data.validation`), or one of
    /// `evaluation.metrics`, which is computed where those are unset.
    pub metric: GateMetric,

    /// Least score of the tuned model, such as 0.9; not for `Loss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub at_least: Option<f64>,

    /// Highest loss of the tuned model; for `Loss` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub at_most: Option<f64>,

    /// By how much it must be better than the base model: higher, and for `Loss` lower; 0 is no worse. When
    /// no bound at all is set, it must be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_improvement: Option<f64>,
}

// Comments on the variants would stand in place of the field's in `kubectl explain`.
/// A score that a gate can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateMetric {
    Loss,
    TokenAccuracy,
    ExactMatch,
    Accuracy,
    MacroF1,
    RougeL,
    Bleu,
    JsonValidity,
}

impl GateMetric {
    /// The score of generated answers that it is; none of a loss or of tokens.
    pub const fn of_answers(self) -> Option<Metric> {
        match self {
            Self::Loss | Self::TokenAccuracy => None,
            Self::ExactMatch => Some(Metric::ExactMatch),
            Self::Accuracy => Some(Metric::Accuracy),
            Self::MacroF1 => Some(Metric::MacroF1),
            Self::RougeL => Some(Metric::RougeL),
            Self::Bleu => Some(Metric::Bleu),
            Self::JsonValidity => Some(Metric::JsonValidity),
        }
    }

    /// The name that scores have.
    pub const fn score(self) -> &'static str {
        match self.of_answers() {
            Some(metric) => metric.score(),
            None if self.lower_is_better() => "loss",
            None => "tokenAccuracy",
        }
    }

    pub const fn lower_is_better(self) -> bool {
        matches!(self, Self::Loss)
    }
}

impl fmt::Display for GateMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `evaluation.gate` says of the published adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// The score that counts.
    pub metric: GateMetric,
    /// Whether it is what the gate asks for.
    pub passed: bool,
    /// Score of the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<f64>,
    /// Score of the tuned model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<f64>,
    /// Both, and what is asked for, in a sentence.
    pub message: String,
}
