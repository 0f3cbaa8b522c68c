//! Copies of files that have to be in two places. `UPDATE_GOLDEN=1`, as in `cargo xtask gen`, makes them.

use serde_yaml::Value;

use crate::support::{golden, read};

const HOW: &str = "run `cargo xtask gen`";

#[test]
fn the_chart_has_the_alerts_and_the_dashboard() {
    let first = "# Generated from deploy/alerts by `cargo xtask gen`. Do not edit.\n";
    let alerts = read("deploy/alerts/anneal.rules.yaml");
    golden("charts/anneal/files/alerts.yaml", &format!("{first}{alerts}"), HOW);
    golden("charts/anneal/files/dashboard.json", &read("deploy/dashboards/anneal.json"), HOW);
}

#[test]
fn the_rule_object_has_the_alerts() {
    let groups: Value = serde_yaml::from_str(&read("deploy/alerts/anneal.rules.yaml")).unwrap();
    let mut object: Value = serde_yaml::from_str(
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n\
         metadata: {name: anneal, namespace: anneal-system}\n",
    )
    .unwrap();
    object["spec"] = groups;
    let text = format!(
        "# Generated from anneal.rules.yaml by `cargo xtask gen`. Do not edit.\n{}",
        serde_yaml::to_string(&object).unwrap()
    );
    golden("deploy/alerts/prometheusrule.yaml", &text, HOW);
}

/// Argo CD is given the text that `health.rs` runs.
#[test]
fn argo_cd_is_given_the_health_that_is_tested() {
    let map: Value = serde_yaml::from_str(&read("deploy/argocd/argocd-cm.yaml")).unwrap();
    let text = &map["data"]["resource.customizations.health.anneal.dev_FineTuneWorkspace"];
    assert_eq!(text.as_str().unwrap(), read("deploy/argocd/health.lua"));
}
