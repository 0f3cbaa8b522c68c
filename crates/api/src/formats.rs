//! The schema as the API server and kubectl know it: there are no unsigned numbers, which the one warns of,
//! and a line of a description ends where the other ends it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Names every integer `int64`, that it is not negative is in its minimum; and joins lines that only the
/// source broke, since `kubectl explain` would break them again.
pub(crate) fn known(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = &mut version.schema
            && let Some(root) = &mut schema.open_api_v3_schema
        {
            walk(root);
        }
    }
    definition
}

fn walk(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *description = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".to_owned());
        schema.minimum.get_or_insert(0.0);
    }
    for property in schema.properties.iter_mut().flat_map(|all| all.values_mut()) {
        walk(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        walk(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        walk(values);
    }
}
