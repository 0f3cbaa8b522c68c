//! The rules of [`crate::validate`] that the API server can keep too, as CEL in the custom resource
//! definition. So `kubectl apply` refuses what `anneal validate` refuses.
//!
//! This file puts a table of rules into a definition; [`workspace`] is one of them. Rules of one field, or of
//! one block, stand at that block: the API server does not hold them against a block that an edit leaves as it
//! was. Rules over several blocks stand at `spec`, and let pass what was against them before the edit, so that
//! an object that is older than a rule can be edited.

mod workspace;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};

pub(crate) use workspace::WORKSPACE;

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
    /// Rules over several blocks; see [`workspace::ACROSS`].
    pub(crate) across: &'static [(&'static str, Option<&'static str>, &'static str)],
}

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
