//! The rules of [`crate::validate`] that the API server can keep too, as CEL in the custom resource
//! definition. So `kubectl apply` refuses what `anneal validate` refuses.
//!
//! This file is the table of a workspace's, and puts any such table into a definition. Rules of one field, or of one block, stand at that block: the API server does not
//! hold them against a block that an edit leaves as it was. Rules over several blocks stand at `spec`, and
//! let pass what was against them before the edit, so that an object that is older than a rule can be edited.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};

/// The rules of a kind.
pub(crate) struct Table {
    /// Longest text at a field, and most items of a list.
    pub(crate) bounds: &'static [(&'static str, i64)],
    /// Lists in which nothing stands twice.
    pub(crate) sets: &'static [&'static str],
    /// Lists of blocks that are told apart by a field, in which each value stands once.
    pub(crate) maps: &'static [(&'static str, &'static str)],
    /// A text that must match, where it is set: block, field, pattern, and what is said of another.
    pub(crate) texts:
        &'static [(&'static str, &'static str, &'static [&'static str], &'static str)],
    /// Lists whose texts are not blank: block, field, and what is said.
    pub(crate) lists: &'static [(&'static str, &'static str, &'static str)],
    /// Numbers with a bound that the schema's range includes: block, field, rule.
    pub(crate) numbers: &'static [(&'static str, &'static str, &'static str)],
    /// Rules over the fields of one block: block, rule, and what is said.
    pub(crate) blocks: &'static [(&'static str, &'static str, &'static str)],
    /// Rules over several blocks; see [`ACROSS`].
    pub(crate) across: &'static [(&'static str, Option<&'static str>, &'static str)],
}

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

/// An image reference, with or without a digest; what [`crate::names::ImageReference`] reads.
pub(crate) const IMAGE: &str = r"^(?:(?:localhost|[A-Za-z0-9_\[\]-]*[.:][A-Za-z0-9_.:\[\]-]*)/)?[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?:/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?";
pub(crate) const DIGEST: &str = "(?:@sha256:[0-9a-f]{64})?";
pub(crate) const IMAGE_SAID: &str =
    "is not an image reference: write it as `registry.example.com/team/name:tag`";

/// What [`crate::names::parse_object_name`] reads.
pub(crate) const NAME: &str = "^[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?$";
pub(crate) const NAME_SAID: &str = "is not the name of an object";

/// What [`crate::names::parse_duration`] reads, but for the zero.
const TIME: &str = "^(?:[0-9]{1,4}d)?(?:[0-9]{1,5}h)?(?:[0-9]{1,6}m)?(?:[0-9]{1,8}s)?$";
const TIME_SAID: &str = "is not a length of time: write it as `30m`, `2h` or `1h30m`";

/// What [`crate::names::parse_bytes`] reads, but for the zero.
pub(crate) const BYTES: &str = "^(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:Ki|Mi|Gi|Ti|k|M|G|T)?$";
pub(crate) const BYTES_SAID: &str = "is not a quantity of memory: write it as `4Gi` or `512Mi`";

pub(crate) const REPO: &str = "^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$";
pub(crate) const REPO_SAID: &str = "is not a Hugging Face repository: write it as `owner/name`";

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
        "!has(X.quantization) || X.quantization == 'None' || !has(X.adapter) || !has(X.adapter.full)",
        None,
        "quantization needs an adapter: `full` trains every weight",
    ),
];

/// Adds all rules to the schema of the whole object.
pub(crate) fn add(root: &mut JSONSchemaProps, table: &Table) {
    let Table { bounds, sets, maps, texts, lists, numbers, blocks, across } = table;
    for (path, most) in *bounds {
        at(root, path, |schema| {
            if schema.type_.as_deref() == Some("array") {
                schema.max_items = Some(*most);
            } else {
                schema.max_length = Some(*most);
            }
        });
    }
    for path in *sets {
        at(root, path, |schema| schema.x_kubernetes_list_type = Some("set".to_owned()));
    }
    for (path, key) in *maps {
        at(root, path, |schema| {
            schema.x_kubernetes_list_type = Some("map".to_owned());
            schema.x_kubernetes_list_map_keys = Some(vec![(*key).to_owned()]);
        });
    }
    for (block, field, patterns, said) in *texts {
        let pattern = patterns.concat();
        // A length of time or a quantity is not zero.
        let positive = [TIME, BYTES].contains(&pattern.as_str());
        let positive =
            if positive { format!(" && self.{field}.matches('[1-9]')") } else { String::new() };
        let rule = format!("!has(self.{field}) || self.{field}.matches(r'{pattern}'){positive}");
        rule_at(root, block, &rule, &format!("{field}: {said}"));
    }
    for (block, field, said) in *lists {
        let rule = format!(r"!has(self.{field}) || self.{field}.all(one, one.matches(r'\S'))");
        rule_at(root, block, &rule, &format!("{field}: {said}"));
    }
    for (block, field, bound) in *numbers {
        let said = bound.replace("> 0.0", "must be above 0").replace("< 1.0", "must be below 1");
        let rule = format!("!has(self.{field}) || self.{field} {bound}");
        rule_at(root, block, &rule, &format!("{field}: {said}"));
    }
    for (block, rule, said) in *blocks {
        rule_at(root, block, rule, said);
    }
    for (rule, against, said) in *across {
        let against = against.map_or_else(|| format!("!({rule})"), str::to_owned);
        let (now, before) = (rule.replace('X', "self"), against.replace('X', "oldSelf.value()"));
        let rule = format!("({now}) || oldSelf.hasValue() && {before}");
        at(root, "spec", |schema| {
            push(schema, ValidationRule { optional_old_self: Some(true), ..said_of(&rule, said) });
        });
    }
}

fn rule_at(root: &mut JSONSchemaProps, path: &str, rule: &str, said: &str) {
    at(root, path, |schema| push(schema, said_of(rule, said)));
}

fn said_of(rule: &str, said: &str) -> ValidationRule {
    ValidationRule {
        rule: rule.to_owned(),
        message: Some(said.to_owned()),
        ..ValidationRule::default()
    }
}

fn push(schema: &mut JSONSchemaProps, rule: ValidationRule) {
    schema.x_kubernetes_validations.get_or_insert_default().push(rule);
}

/// The schema at a path such as `spec.data.labels[]`.
fn at(root: &mut JSONSchemaProps, path: &str, change: impl FnOnce(&mut JSONSchemaProps)) {
    let mut schema = root;
    for name in path.split('.') {
        let field = name.strip_suffix("[]").unwrap_or(name);
        schema = schema
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut(field))
            .expect("each path of this table is in the types");
        if name.ends_with("[]") {
            let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items else {
                unreachable!("each list of this table has items");
            };
            schema = items;
        }
    }
    change(schema);
}
