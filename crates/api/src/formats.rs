//! Number formats as the API server knows them: it has no unsigned ones, and warns of each.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Names every integer `int64`; that it is not negative is in its minimum.
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
