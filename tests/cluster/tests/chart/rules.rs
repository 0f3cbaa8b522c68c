//! Alerts, held against promtool: they are well formed, and fire when they should and not before.

use serde_yaml::Value;

use crate::support::{needs_go, read, repository, tool, well};

#[test]
fn alerts_are_well_formed_and_fire_when_they_should() {
    if !needs_go("alerts_are_well_formed_and_fire_when_they_should") {
        return;
    }
    let rules = repository("deploy/alerts/anneal.rules.yaml");
    well(tool("promtool").args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(rules));
    let tests = repository("deploy/alerts/anneal.rules.test.yaml");
    well(tool("promtool").args(["test", "rules"]).arg(tests));
}

/// No alert is without a test in which it fires, and none without a next step.
#[test]
fn every_alert_is_tried_and_says_what_to_do() {
    let rules: Value = serde_yaml::from_str(&read("deploy/alerts/anneal.rules.yaml")).unwrap();
    let tests: Value = serde_yaml::from_str(&read("deploy/alerts/anneal.rules.test.yaml")).unwrap();
    let tried = tests["tests"].as_sequence().unwrap().iter().flat_map(|test| {
        let alerts = test["alert_rule_test"].as_sequence().unwrap();
        let fire = |one: &&Value| !one["exp_alerts"].as_sequence().unwrap().is_empty();
        alerts.iter().filter(fire).map(|one| one["alertname"].as_str().unwrap())
    });
    let tried: Vec<&str> = tried.collect();
    let mut alerts = 0;
    for group in rules["groups"].as_sequence().unwrap() {
        for rule in group["rules"].as_sequence().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            assert!(tried.contains(&name), "no test in which {name} fires");
            let description = rule["annotations"]["description"].as_str().unwrap();
            assert!(description.contains("Next: "), "{name} does not say what to do next");
            alerts += 1;
        }
    }
    assert!(alerts >= 10, "only {alerts} alerts");
}
