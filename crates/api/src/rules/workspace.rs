//! The rules of a `FineTuneWorkspace` that the API server keeps too; [`crate::validate`] says the same with
//! each field's name.

use super::{
    BYTES, BYTES_SAID, DIGEST, IMAGE, IMAGE_SAID, NAME, NAME_SAID, REPO, REPO_SAID, TIME,
    TIME_SAID, Table,
};

/// The rules of a `FineTuneWorkspace`.
pub(crate) const WORKSPACE: Table = Table {
    bounds: BOUNDS,
    sets: SETS,
    maps: &[],
    texts: TEXTS,
    lists: LISTS,
    numbers: NUMBERS,
    blocks: BLOCKS,
    across: ACROSS,
};

/// Far above any real one: they bound what a rule costs.
const BOUNDS: &[(&str, i64)] = &[
    ("spec.baseModel.path", 4096),
    ("spec.baseModel.image", 512),
    ("spec.baseModel.pullSecret", 253),
    ("spec.baseModel.huggingFace.repo", 256),
    ("spec.baseModel.huggingFace.revision", 256),
    ("spec.baseModel.huggingFace.tokenSecret", 253),
    ("spec.data.train.path", 4096),
    ("spec.data.train.paths", 256),
    ("spec.data.train.paths[]", 1024),
    ("spec.data.train.image", 512),
    ("spec.data.validation.path", 4096),
    ("spec.data.validation.paths", 256),
    ("spec.data.validation.paths[]", 1024),
    ("spec.data.validation.image", 512),
    ("spec.data.test.path", 4096),
    ("spec.data.test.paths", 256),
    ("spec.data.test.paths[]", 1024),
    ("spec.data.test.image", 512),
    ("spec.data.labels", 1000),
    ("spec.data.labels[]", 1024),
    ("spec.data.pullSecret", 253),
    ("spec.adapter.lora.targetModules", 1000),
    ("spec.adapter.lora.targetModules[]", 1024),
    ("spec.adapter.lora.excludeModules", 1000),
    ("spec.adapter.lora.excludeModules[]", 1024),
    ("spec.adapter.lora.modulesToSave", 1000),
    ("spec.adapter.lora.modulesToSave[]", 1024),
    ("spec.evaluation.metrics", 20),
    ("spec.evaluation.metrics[]", 32),
    ("spec.checkpoints.every", 32),
    ("spec.compute.memory", 32),
    ("spec.compute.nodes.nodeClassRef.group", 253),
    ("spec.compute.nodes.nodeClassRef.kind", 63),
    ("spec.compute.nodes.nodeClassRef.name", 253),
    ("spec.compute.nodes.products", 50),
    ("spec.compute.nodes.products[]", 63),
    ("spec.compute.nodes.gpuMemory", 32),
    ("spec.compute.nodes.zones", 50),
    ("spec.compute.nodes.zones[]", 63),
    ("spec.compute.nodes.ttlAfterIdle", 32),
    ("spec.output.image", 512),
    ("spec.output.pushSecret", 253),
    ("spec.limits.deadline", 32),
    ("spec.limits.stall", 32),
    ("spec.limits.ttlAfterFinished", 32),
];

const SETS: &[&str] = &[
    "spec.data.labels",
    "spec.evaluation.metrics",
    "spec.compute.nodes.products",
    "spec.compute.nodes.zones",
];

const TEXTS: &[(&str, &str, &[&str], &str)] = &[
    ("spec.baseModel", "path", &[r"\S"], "the path is empty"),
    ("spec.baseModel", "image", &[IMAGE, DIGEST, "$"], IMAGE_SAID),
    ("spec.baseModel", "pullSecret", &[NAME], NAME_SAID),
    ("spec.baseModel.huggingFace", "repo", &[REPO], REPO_SAID),
    ("spec.baseModel.huggingFace", "tokenSecret", &[NAME], NAME_SAID),
    ("spec.data.train", "path", &[r"\S"], "the path is empty"),
    ("spec.data.train", "image", &[IMAGE, DIGEST, "$"], IMAGE_SAID),
    ("spec.data.validation", "path", &[r"\S"], "the path is empty"),
    ("spec.data.validation", "image", &[IMAGE, DIGEST, "$"], IMAGE_SAID),
    ("spec.data.test", "path", &[r"\S"], "the path is empty"),
    ("spec.data.test", "image", &[IMAGE, DIGEST, "$"], IMAGE_SAID),
    ("spec.data", "pullSecret", &[NAME], NAME_SAID),
    ("spec.checkpoints", "every", &[TIME], TIME_SAID),
    ("spec.compute", "memory", &[BYTES], BYTES_SAID),
    ("spec.compute.nodes", "gpuMemory", &[BYTES], BYTES_SAID),
    ("spec.compute.nodes", "ttlAfterIdle", &[TIME], TIME_SAID),
    ("spec.compute.nodes.nodeClassRef", "name", &[NAME], NAME_SAID),
    (
        "spec.output",
        "image",
        &[IMAGE, "$"],
        "is not an image reference without a digest: write it as `registry.example.com/team/name`",
    ),
    ("spec.output", "pushSecret", &[NAME], NAME_SAID),
    ("spec.limits", "deadline", &[TIME], TIME_SAID),
    ("spec.limits", "stall", &[TIME], TIME_SAID),
    ("spec.limits", "ttlAfterFinished", &[TIME], TIME_SAID),
];

const LISTS: &[(&str, &str, &str)] = &[
    ("spec.data.train", "paths", "a path is empty"),
    ("spec.data.validation", "paths", "a path is empty"),
    ("spec.data.test", "paths", "a path is empty"),
    ("spec.data", "labels", "a label is empty"),
    ("spec.adapter.lora", "targetModules", "an empty text names no module"),
    ("spec.adapter.lora", "excludeModules", "an empty text names no module"),
    ("spec.adapter.lora", "modulesToSave", "an empty text names no module"),
    ("spec.compute.nodes", "products", "a product is empty"),
    ("spec.compute.nodes", "zones", "a zone is empty"),
];

const NUMBERS: &[(&str, &str, &str)] = &[
    ("spec.data.validation", "fraction", "> 0.0"),
    ("spec.data.validation", "fraction", "< 1.0"),
    ("spec.data.test", "fraction", "> 0.0"),
    ("spec.data.test", "fraction", "< 1.0"),
    ("spec.adapter.lora", "alpha", "> 0.0"),
    ("spec.adapter.lora", "dropout", "< 1.0"),
    ("spec.hyperparameters", "epochs", "> 0.0"),
    ("spec.hyperparameters", "learningRate", "> 0.0"),
    ("spec.hyperparameters", "learningRateMultiplier", "> 0.0"),
    ("spec.hyperparameters", "adamEpsilon", "> 0.0"),
    ("spec.hyperparameters", "adamBeta1", "< 1.0"),
    ("spec.hyperparameters", "adamBeta2", "< 1.0"),
];

const BLOCKS: &[(&str, &str, &str)] = &[
    (
        "spec.data",
        "(has(self.validation) && has(self.validation.fraction) ? self.validation.fraction : 0.0) \
         + (has(self.test) && has(self.test.fraction) ? self.test.fraction : 0.0) < 1.0",
        "validation and test take all of the examples, and none are left",
    ),
    (
        "spec.data",
        "self.format != 'Chat' || !(has(self.template) || has(self.columns) && \
         (has(self.columns.prompt) || has(self.columns.completion) || has(self.columns.text)))",
        "template and the columns prompt, completion and text have no meaning with `format: Chat`",
    ),
    (
        "spec.data",
        "self.format != 'Completion' || !(has(self.columns) && \
         (has(self.columns.messages) || has(self.columns.text)))",
        "the columns messages and text have no meaning with `format: Completion`",
    ),
    (
        "spec.data",
        "self.format != 'Text' || !(has(self.template) || has(self.system) || \
         has(self.labels) && self.labels.size() > 0 || has(self.columns) && \
         (has(self.columns.messages) || has(self.columns.prompt) || has(self.columns.completion)))",
        "template, system, labels and the columns of conversations have no meaning with `format: Text`",
    ),
    (
        "spec.data",
        "!has(self.labels) || self.labels.size() != 1",
        "one label leaves nothing to decide",
    ),
    (
        "spec.evaluation.gate",
        "self.metric != 'Loss' || !has(self.atLeast)",
        "atLeast has no meaning with `metric: Loss`: use atMost",
    ),
    (
        "spec.evaluation.gate",
        "self.metric in ['Loss', 'Bleu'] || !has(self.atLeast) || self.atLeast <= 1.0",
        "atLeast of a share is at most 1",
    ),
    (
        "spec.evaluation.gate",
        "self.metric == 'Loss' || !has(self.atMost)",
        "atMost is for `metric: Loss` alone: use atLeast",
    ),
    (
        "spec.evaluation",
        "!has(self.gate) || !has(self.metrics) || self.gate.metric in ['Loss', 'TokenAccuracy'] || \
         self.metrics.exists(m, m == self.gate.metric)",
        "gate.metric is not among metrics",
    ),
    (
        "spec.hyperparameters",
        "!has(self.warmupSteps) || !has(self.maxSteps) || self.warmupSteps <= self.maxSteps",
        "warmupSteps are more than maxSteps",
    ),
    (
        "spec.hyperparameters",
        "!has(self.microBatchTokens) || !has(self.maxSequenceLength) || \
         self.microBatchTokens >= self.maxSequenceLength",
        "microBatchTokens do not hold an example of maxSequenceLength",
    ),
    (
        "spec.compute.nodes",
        "!has(self.nodeClassRef) || !has(self.provisioner) || self.provisioner == 'Karpenter'",
        "nodeClassRef is Karpenter's, and has no meaning with another provisioner",
    ),
    (
        "spec.compute.nodes",
        "!has(self.maxInterruptions) || \
         has(self.capacityType) && self.capacityType == 'SpotThenOnDemand'",
        "maxInterruptions needs `capacityType: SpotThenOnDemand`",
    ),
    (
        "spec.compute.nodes",
        "!has(self.provisioner) || !(self.provisioner in ['Existing', 'DRA']) || \
         !(has(self.capacityType) || has(self.ttlAfterIdle) || \
         has(self.labels) && self.labels.size() > 0)",
        "capacityType, ttlAfterIdle and labels are of nodes that are made: Existing and DRA make none",
    ),
];

/// Rules over several blocks; `X` is the spec. What was against a rule before an edit may stay so: that is
/// the rule's contrary, or the second text where the API server holds that for too costly.
const ACROSS: &[(&str, Option<&str>, &str)] = &[
    (
        "!has(X.earlyStopping) || has(X.data.validation)",
        None,
        "earlyStopping needs data.validation",
    ),
    (
        "!has(X.evaluation) || !has(X.evaluation.everySteps) || has(X.data.validation)",
        None,
        "evaluation.everySteps needs data.validation",
    ),
    (
        "!has(X.evaluation) || has(X.data.test) || !(has(X.evaluation.maxNewTokens) || \
         has(X.evaluation.maxExamples) || has(X.evaluation.metrics) && X.evaluation.metrics.size() > 0)",
        None,
        "evaluation.metrics, maxNewTokens and maxExamples need data.test",
    ),
    (
        "!has(X.evaluation) || !has(X.evaluation.metrics) || \
         !X.evaluation.metrics.exists(m, m == 'Accuracy' || m == 'MacroF1') || \
         has(X.data.labels) && X.data.labels.size() > 0",
        Some(
            "has(X.evaluation) && has(X.evaluation.metrics) && \
             !(has(X.data.labels) && X.data.labels.size() > 0)",
        ),
        "the metrics Accuracy and MacroF1 need data.labels",
    ),
    (
        "!has(X.evaluation) || !has(X.evaluation.metrics) || X.evaluation.metrics.size() == 0 || \
         X.data.format != 'Text'",
        None,
        "evaluation.metrics have no meaning with `format: Text`",
    ),
    (
        "!has(X.evaluation) || !has(X.evaluation.gate) || has(X.data.test) || \
         has(X.data.validation) && X.evaluation.gate.metric in ['Loss', 'TokenAccuracy']",
        None,
        "evaluation.gate needs data.test; with Loss or TokenAccuracy, data.validation will do",
    ),
    (
        "!has(X.evaluation) || !has(X.evaluation.gate) || \
         !(X.evaluation.gate.metric in ['Accuracy', 'MacroF1']) || \
         has(X.data.labels) && X.data.labels.size() > 0",
        None,
        "evaluation.gate by Accuracy or MacroF1 needs data.labels",
    ),
    (
        "!has(X.evaluation) || !has(X.evaluation.gate) || X.data.format != 'Text' || \
         X.evaluation.gate.metric in ['Loss', 'TokenAccuracy']",
        None,
        "evaluation.gate by answers has no meaning with `format: Text`",
    ),
    (
        "!has(X.quantization) || X.quantization == 'None' || !has(X.adapter) || !has(X.adapter.full)",
        None,
        "quantization needs an adapter: `full` trains every weight",
    ),
];
