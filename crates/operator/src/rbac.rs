//! What the operator may do: everything that it does, and nothing else. `anneal-operator rbac` prints
//! it, and `deploy/rbac` and the chart hold what is printed.

use api::workspace::API_VERSION;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::context::MANAGER;
use crate::leader::LEASE;

/// Rules in the namespaces that workspaces and servers live in.
pub(crate) fn workspace_rules() -> Vec<PolicyRule> {
    let group = API_VERSION.split('/').next().unwrap_or_default();
    vec![
        // To write: a finalizer, while there are nodes for a workspace.
        rule(group, "finetuneworkspaces", &["get", "list", "watch", "patch"]),
        rule(group, "finetuneworkspaces/status", &["patch"]),
        // `blockOwnerDeletion` in an owner reference needs the right to set finalizers on the owner.
        rule(group, "finetuneworkspaces/finalizers", &["update"]),
        rule(group, "modelservers", &["get", "list", "watch"]),
        rule(group, "modelservers/status", &["patch"]),
        rule(group, "modelservers/finalizers", &["update"]),
        rule("batch", "jobs", &["get", "list", "watch", "create", "patch", "delete"]),
        rule("", "pods", &["list", "watch"]),
        rule("", "configmaps", &["get", "list", "watch", "create", "patch", "delete"]),
        // For servers. To get: an object of somebody else's with the same name is left alone.
        rule("apps", "deployments", &["get", "list", "watch", "create", "patch"]),
        rule("", "services", &["get", "list", "watch", "create", "patch"]),
        rule("networking.k8s.io", "networkpolicies", &["get", "list", "watch", "create", "patch"]),
        rule("policy", "poddisruptionbudgets", &["get", "list", "watch", "create", "patch"]),
        rule(
            "autoscaling",
            "horizontalpodautoscalers",
            &["get", "list", "watch", "create", "patch", "delete"],
        ),
        // By name alone: secrets are neither listed nor watched.
        rule("", "secrets", &["get"]),
        rule("", "events", &["list"]),
        rule("events.k8s.io", "events", &["create"]),
        rule("resource.k8s.io", "resourceclaimtemplates", &["list", "create", "patch", "delete"]),
    ]
}

/// Rules over the whole cluster: what nodes are made with, which belongs to no namespace. Nodes are only
/// looked at.
pub(crate) fn node_rules() -> Vec<PolicyRule> {
    vec![
        rule("karpenter.sh", "nodepools", &["list", "create", "patch", "delete"]),
        rule("cloud.google.com", "computeclasses", &["list", "create", "patch", "delete"]),
        rule("", "nodes", &["get", "list"]),
    ]
}

/// Rules in the operator's own namespace.
pub(crate) fn own_rules() -> Vec<PolicyRule> {
    let mut named = rule("coordination.k8s.io", "leases", &["get", "update"]);
    named.resource_names = Some(vec![LEASE.to_owned()]);
    vec![rule("coordination.k8s.io", "leases", &["create"]), named]
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

/// Roles and bindings as YAML documents, for an operator that looks at all namespaces, or at one alone.
pub(crate) fn yaml(namespace: Option<&str>) -> Result<String, serde_yaml::Error> {
    let mut text =
        "# Generated from crates/operator by `cargo xtask gen`. Do not edit.\n".to_owned();
    for document in documents(namespace) {
        text += "---\n";
        text += &serde_yaml::to_string(&document)?;
    }
    Ok(text)
}

fn documents(namespace: Option<&str>) -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    const HOME: &str = "anneal-system";
    let own = json!({"name": MANAGER, "namespace": HOME});
    let role = |kind: &str, metadata: &Value, rules: Vec<PolicyRule>| {
        let binding = format!("{kind}Binding");
        let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]});
        let subjects = json!([{"kind": "ServiceAccount", "name": MANAGER, "namespace": HOME}]);
        [
            json!({"apiVersion": RBAC, "kind": kind, "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": RBAC,
                "kind": binding,
                "metadata": metadata,
                "roleRef": of,
                "subjects": subjects,
            }),
        ]
    };
    let workspaces = match namespace {
        None => role("ClusterRole", &json!({"name": MANAGER}), workspace_rules()),
        Some(namespace) => {
            // Another name than that of the operator's own role, which may be in the same namespace.
            let metadata = json!({"name": format!("{MANAGER}-workspaces"), "namespace": namespace});
            role("Role", &metadata, workspace_rules())
        }
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own});
    let mut documents = vec![account];
    documents.extend(workspaces);
    if namespace.is_none() {
        let nodes = json!({"name": format!("{MANAGER}-nodes")});
        documents.extend(role("ClusterRole", &nodes, node_rules()));
    }
    documents.extend(role("Role", &own, own_rules()));
    documents
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::{node_rules, own_rules, workspace_rules, yaml};

    /// `UPDATE_GOLDEN=1` writes the files anew.
    #[test]
    fn the_committed_roles_are_those_that_the_operator_needs() {
        let rules = json!({
            "workspaces": workspace_rules(),
            "nodes": node_rules(),
            "own": own_rules(),
        });
        let first = "# Generated from crates/operator by `cargo xtask gen`. Do not edit.\n";
        for (path, wanted) in [
            ("deploy/rbac/operator.yaml", yaml(None).unwrap()),
            (
                "charts/anneal/files/rules.yaml",
                format!("{first}{}", serde_yaml::to_string(&rules).unwrap()),
            ),
            ("charts/anneal/files/finetuneworkspaces.anneal.dev.yaml", api::crd_yaml()),
            ("charts/anneal/files/modelservers.anneal.dev.yaml", api::model_server_crd_yaml()),
        ] {
            let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, &wanted).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap();
            assert!(committed == wanted, "{path} is stale: run `cargo xtask gen`");
        }
    }
}
