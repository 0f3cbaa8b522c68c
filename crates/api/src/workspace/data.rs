//! What the examples are and how a record becomes one.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{DataSource, Duplicates, Format, HeldOutSource, Overlong};

/// The examples to learn from, and those that are kept away to measure what was learned.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.template) && has(self.columns) && (has(self.columns.prompt) || has(self.columns.completion)))").message("template builds prompt and completion: columns.prompt and columns.completion have no meaning beside it"))]
#[serde(rename_all = "camelCase")]
pub struct DataSpec {
    /// The examples that the model learns from.
    pub train: DataSource,

    /// Examples that are scored during training, for the validation curve, early stopping and the
    /// choice of the best checkpoint. None when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<HeldOutSource>,

    /// Examples that the base model and the tuned one answer at the end, to compare them. None when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<HeldOutSource>,

    /// How a record is understood. `Auto`: from the first records. `Chat`: `messages` with roles (also
    /// ShareGPT's `conversations`); the loss is on assistant turns. `Completion`: `prompt` and
    /// `completion` (also Alpaca's columns); the loss is on the completion. `Text`: `text`, all of which
    /// is learned.
    #[serde(default)]
    pub format: Format,

    /// Names of the columns, where they differ from the standard ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnsSpec>,

    /// Builds prompt and completion from the columns of a record, with Jinja templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateSpec>,

    /// System message for conversations that have none of their own. For `Completion`, prompt and
    /// completion then become a conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub system: Option<String>,

    /// The closed set of answers of a labelling task. An answer outside of it is a fault, and the test
    /// split is scored by accuracy and macro-F1 over these. Empty when answers are free text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,

    /// What happens to an example that is longer than `hyperparameters.maxSequenceLength`. `Fault`: the
    /// run is refused and the example named. `Truncate`: its end is cut off. `Drop`: it is left out.
    #[serde(default)]
    pub overlong: Overlong,

    /// What happens to an exact copy of an earlier example. `Drop`: it is left out and counted, so that no
    /// test example is learned by heart. `Fault`: the run is refused and the copy named. `Keep`: it stays.
    #[serde(default)]
    pub duplicates: Duplicates,

    /// Secret of type `kubernetes.io/dockerconfigjson` in the workspace's namespace, with which images of
    /// data are pulled. In a cluster only; a local run reads Docker's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub pull_secret: Option<String>,
}

/// Names of the columns (or JSON keys) that play each role.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnsSpec {
    /// The list of messages of a conversation; `messages` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub messages: Option<String>,

    /// What the model is given; `prompt` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub prompt: Option<String>,

    /// What the model is to answer; `completion` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub completion: Option<String>,

    /// Plain text, all of which is learned; `text` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub text: Option<String>,
}

/// Jinja templates over the columns of a record, such as `Review: {{ text }}`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    /// What the model is given.
    #[schemars(length(min = 1))]
    pub prompt: String,

    /// What the model is to answer.
    #[schemars(length(min = 1))]
    pub completion: String,
}
