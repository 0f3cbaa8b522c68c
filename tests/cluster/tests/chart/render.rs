//! The chart as helm renders it: golden files for four sets of values, values that are refused, notes.

use serde_yaml::Value;

use crate::support::{ended, golden, needs_go, objects, read, repository, tool, well, yaml};

/// Name, and the file of values.
pub(crate) const SETS: [(&str, Option<&str>); 4] = [
    ("default", None),
    ("everything", Some("tests/cluster/tests/chart/everything.yaml")),
    ("aks", Some("charts/anneal/values-aks.yaml")),
    ("gke", Some("charts/anneal/values-gke.yaml")),
];

/// What helm makes of the chart.
pub(crate) fn render(values: Option<&str>, more: &[&str]) -> Result<String, String> {
    let mut command = tool("helm");
    command.args(["template", "anneal"]).arg(repository("charts/anneal"));
    command.args(["--namespace", "anneal-system", "--kube-version", "1.37.0"]).args(more);
    if let Some(values) = values {
        command.arg("--values").arg(repository(values));
    }
    let (is_well, text, errors) = ended(&mut command).unwrap();
    if is_well { Ok(text) } else { Err(errors) }
}

#[test]
fn helm_finds_nothing_to_blame() {
    if !needs_go("helm_finds_nothing_to_blame") {
        return;
    }
    for (_, values) in SETS {
        let mut command = tool("helm");
        command
            .args(["lint", "--strict", "--kube-version", "1.37.0"])
            .arg(repository("charts/anneal"));
        if let Some(values) = values {
            command.arg("--values").arg(repository(values));
        }
        well(&mut command);
    }
}

/// What is rendered changes on purpose only. `UPDATE_GOLDEN=1` writes the files anew.
#[test]
fn what_is_rendered_is_known() {
    if !needs_go("what_is_rendered_is_known") {
        return;
    }
    for (name, values) in SETS {
        let text = render(values, &[]).unwrap();
        let mut objects = objects(&text);
        objects.retain_mut(|object| !is_long(object));
        let path = format!("tests/cluster/tests/chart/golden/{name}.yaml");
        golden(
            &path,
            &yaml(&objects),
            "look at the change, then run the test with UPDATE_GOLDEN=1",
        );
    }
}

/// Checks the definition against its file, and leaves it out; shortens the dashboard.
fn is_long(object: &mut Value) -> bool {
    if object["kind"] == "CustomResourceDefinition" {
        let name = object["metadata"]["name"].as_str().unwrap();
        let mut wanted: Value =
            serde_yaml::from_str(&read(&format!("deploy/crds/{name}.yaml"))).unwrap();
        let keep = serde_yaml::from_str("{helm.sh/resource-policy: keep}").unwrap();
        wanted["metadata"]["annotations"] = keep;
        // Helm writes 4096.0 as 4096.
        let numbers = |value: &Value| as_floats(serde_json::to_value(value).unwrap());
        assert_eq!(numbers(object), numbers(&wanted), "the chart's definition is another");
        return true;
    }
    if let Some(dashboard) = object.get_mut("data").and_then(|data| data.get_mut("anneal.json")) {
        assert_eq!(dashboard.as_str().unwrap(), read("deploy/dashboards/anneal.json"));
        *dashboard = Value::from("deploy/dashboards/anneal.json");
    }
    false
}

/// The same value with every number of one kind.
fn as_floats(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Number(number) => Json::from(number.as_f64()),
        Json::Array(list) => list.into_iter().map(as_floats).collect(),
        Json::Object(map) => {
            map.into_iter().map(|(name, value)| (name, as_floats(value))).collect()
        }
        value @ (Json::Null | Json::Bool(_) | Json::String(_)) => value,
    }
}

/// The definition is there by choice.
#[test]
fn the_definition_can_be_left_out() {
    if !needs_go("the_definition_can_be_left_out") {
        return;
    }
    let text = render(None, &["--set", "crds.enabled=false"]).unwrap();
    assert!(!text.contains("CustomResourceDefinition"));
    assert!(text.contains("kind: Deployment"));
}

/// In one namespace, the operator asks for nothing that belongs to the cluster.
#[test]
fn one_namespace_takes_no_right_of_the_cluster() {
    if !needs_go("one_namespace_takes_no_right_of_the_cluster") {
        return;
    }
    let team = ["--set", "namespace=team,crds.enabled=false,rbac.aggregate=false"];
    let text = render(Some("tests/cluster/tests/chart/everything.yaml"), &team).unwrap();
    for object in objects(&text) {
        let kind = object["kind"].as_str().unwrap();
        assert!(!kind.starts_with("Cluster"), "{kind}");
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        assert!(["anneal-system", "team"].contains(&namespace), "{kind} in {namespace}");
    }
    assert!(text.contains("ANNEAL_NAMESPACE"));
}

/// A digest goes before a tag, and the chart's version is the tag where none is stated.
#[test]
fn images_are_pinned() {
    if !needs_go("images_are_pinned") {
        return;
    }
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let set = format!("image.tag=v9,image.digest={digest},trainer.tag=v8");
    let text = render(None, &["--set", &set]).unwrap();
    assert!(text.contains(&format!("image: ghcr.io/anneal-dev/operator@{digest}\n")), "{text}");
    assert!(text.contains("value: ghcr.io/anneal-dev/trainer:v8\n"));
    let text = render(None, &[]).unwrap();
    assert!(text.contains("image: ghcr.io/anneal-dev/operator:0.1.0\n"));
}

/// Wrong values are refused by name, and not found out in the cluster.
#[test]
fn wrong_values_are_refused() {
    if !needs_go("wrong_values_are_refused") {
        return;
    }
    for (value, named) in [
        ("replicas=0", "replicas"),
        ("replicas=two", "replicas"),
        ("replica=2", "replica"),
        ("image.digest=sha256:12", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("trainer.repository=", "repository"),
        ("namespace=Team_A", "namespace"),
        ("tracing.endpoint=collector:4317", "endpoint"),
        ("serviceMonitor.interval=often", "interval"),
        ("serviceMonitor.enabled=maybe", "enabled"),
        ("podMonitor.labels.a=1", "labels"),
        ("resources.limits.memory=much", "memory"),
        ("imagePullSecrets[0]=Not A Name", "imagePullSecrets"),
        ("tolerations[0].operatr=Exists", "operatr"),
        ("plainHttp[0]=http://registry:5000", "plainHttp"),
        ("workers=0", "workers"),
        ("crds.install=true", "install"),
        ("grafana.enabled=true", "grafana"),
    ] {
        let errors = render(None, &["--set", value]).err();
        let errors = errors.unwrap_or_else(|| panic!("`{value}` is taken"));
        assert!(errors.contains("schema") && errors.contains(named), "{value}: {errors}");
    }
}

/// Every value has a rule, and every rule has a value.
#[test]
fn the_schema_is_complete() {
    let schema: Value = serde_yaml::from_str(&read("charts/anneal/values.schema.json")).unwrap();
    let values: Value = serde_yaml::from_str(&read("charts/anneal/values.yaml")).unwrap();
    compare("", &values, &schema);
}

fn compare(path: &str, value: &Value, rule: &Value) {
    let (Some(rules), Some(values)) = (rule["properties"].as_mapping(), value.as_mapping()) else {
        return;
    };
    assert_eq!(rule["additionalProperties"], false, "`{path}` takes anything");
    for (name, value) in values {
        let name = name.as_str().unwrap();
        assert!(rules.contains_key(name), "`{path}.{name}` has no rule");
        compare(&format!("{path}.{name}"), value, &rule["properties"][name]);
    }
    for name in rules.keys() {
        let is_there = values.contains_key(name) || (path.is_empty() && name == "global");
        let parts = ["requests", "limits", "nodeAffinity", "podAffinity", "podAntiAffinity"];
        assert!(is_there || parts.contains(&name.as_str().unwrap()), "`{path}` has no {name:?}");
    }
}
