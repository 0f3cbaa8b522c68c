//! The custom resource definition: every rule with one sample that is accepted and one that is not, by
//! the API server and by `anneal validate`.

use std::fs;
use std::time::Duration;

use api::FineTuneWorkspace;
use api::condition::READY;
use api::workspace::Phase;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Operator, Place, WORKSPACE, apply_all, install_these, until};

use crate::support::condition;

/// `crates/api/tests/samples/RULE.yaml`: one that the rule lets pass, and one that it refuses, with the words
/// of the refusal in the first line. `anneal validate` has the same verdict.
#[tokio::test]
async fn each_rule_refuses_its_sample_in_its_own_words() {
    if !needs_control_plane("each_rule_refuses_its_sample_in_its_own_words") {
        return;
    }
    let place = Place::new("samples").await.unwrap();
    samples(&place, "samples", WORKSPACES).await;
    samples(&place, "server_samples", SERVERS).await;
}

/// Where the API server takes objects of a kind, and what reads them without one.
type Kind = (&'static str, fn(&str) -> bool);
const WORKSPACES: Kind = ("finetuneworkspaces", |text| api::load("w.yaml", text).is_ok());
const SERVERS: Kind = ("modelservers", |text| api::yaml::load_server("s.yaml", text).is_ok());

/// The smallest server that a cluster takes.
const SERVER: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: ModelServer
metadata: {name: smollm2}
spec:
  baseModel: {image: \"registry.example.com/models/smollm2:135m\"}
  adapters: [{name: reviews, workspace: reviews}]
";

async fn samples(place: &Place, folder: &str, kind: Kind) {
    let folder = format!("{}/../../crates/api/tests/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (accepted, refused) = text.split_once("\n---\n").unwrap();
        let said = text.lines().next().unwrap();
        let said = said.strip_prefix("# Accepted, and refused: ").unwrap();
        if let Err(error) = create(place, kind.0, &yaml(accepted)).await {
            wrong.push(format!("{} is refused: {error}", path.display()));
        }
        match create(place, kind.0, &yaml(refused)).await {
            Ok(()) => wrong.push(format!("{} is accepted:\n{refused}", path.display())),
            Err(error) if !error.to_string().contains(said) => {
                wrong.push(format!("{} is refused by another rule: {error}", path.display()));
            }
            Err(_) => {}
        }
        assert!((kind.1)(accepted) && !(kind.1)(refused));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every field of the spec, with values just outside of its range and of other types: the API server and
/// `anneal validate` have the same verdict on each.
#[tokio::test]
async fn api_server_and_validate_have_the_same_verdict_on_every_field() {
    if !needs_control_plane("api_server_and_validate_have_the_same_verdict_on_every_field") {
        return;
    }
    let place = Place::new("every-field").await.unwrap();
    every_field(&place, WORKSPACES, (&api::crd_yaml(), WORKSPACE), (250, 150)).await;
    every_field(&place, SERVERS, (&api::model_server_crd_yaml(), SERVER), (100, 70)).await;
}

/// The least numbers of values that are tried, and that are refused.
async fn every_field(
    place: &Place,
    kind: Kind,
    (crd, sample): (&str, &str),
    least: (usize, usize),
) {
    let crd: Value = serde_yaml::from_str(crd).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut mutations = Vec::new();
    mutate(schema, "/spec", &mut mutations);
    assert!(mutations.len() > least.0, "only {} mutations", mutations.len());
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for (pointer, value) in mutations {
        let mut whole = yaml(sample);
        set(&mut whole, &pointer, value.clone());
        let answer = create(place, kind.0, &whole).await;
        let is_taken = (kind.1)(&serde_yaml::to_string(&whole).unwrap());
        refused += usize::from(answer.is_err());
        if answer.is_ok() != is_taken {
            wrong
                .push(format!("{pointer} = {value}: we say {is_taken}, and it {:?}", answer.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > least.1, "only {refused} are refused");
}

/// Values to try at each field below a schema.
fn mutate(schema: &Value, pointer: &str, mutations: &mut Vec<(String, Value)>) {
    let mut put = |value: Value| mutations.push((pointer.to_owned(), value));
    let number = |name: &str| schema[name].as_f64();
    match schema["type"].as_str() {
        Some("object") => {
            if schema["properties"].is_object() && pointer != "/spec" {
                put(json!({}));
                put(json!("text"));
                put(json!({"unheardOf": 1}));
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                mutate(property, &format!("{pointer}/{name}"), mutations);
            }
        }
        Some("array") => {
            put(json!([]));
            put(json!("text"));
            put(json!([1]));
        }
        Some("string") => {
            for text in ["", " ", "a", "UPPER case", "-", "1", "0", "true"] {
                put(json!(text));
            }
            put(json!(1));
            put(json!("x".repeat(5000)));
        }
        Some("boolean") => {
            put(json!(true));
            put(json!("true"));
        }
        Some("integer" | "number") => {
            for bound in [number("minimum"), number("maximum")].into_iter().flatten() {
                for value in [bound - 1.0, bound, bound + 1.0] {
                    let is_integer = schema["type"] == "integer";
                    put(if is_integer { json!(value as i64) } else { json!(value) });
                }
            }
            put(json!(0.5));
            put(json!("1"));
        }
        _ => {}
    }
}

fn set(whole: &mut Value, pointer: &str, value: Value) {
    let mut place = whole;
    for name in pointer.split('/').skip(1) {
        if !place[name].is_object() && !place[name].is_null() {
            place[name] = Value::Null;
        }
        place = &mut place[name];
    }
    *place = value;
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// Asks the API server, which keeps nothing; fields that it does not know are refused, as kubectl does it.
async fn create(place: &Place, plural: &str, object: &Value) -> Result<(), kube::Error> {
    let path = format!(
        "/apis/anneal.dev/v1alpha1/namespaces/{}/{plural}?dryRun=All&fieldValidation=Strict",
        place.namespace
    );
    let request = http::Request::post(path)
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(object).unwrap())
        .unwrap();
    place.client.request::<Value>(request).await.map(|_| ())
}

/// A rule that is younger than an object does not get in the way of who edits or deletes it, nor of the
/// operator that writes its status.
#[tokio::test]
async fn an_object_older_than_a_rule_stays_editable_and_deletable() {
    if !needs_control_plane("an_object_older_than_a_rule_stays_editable_and_deletable") {
        return;
    }
    let place = Place::alone("older").await.unwrap();
    let roles = Operator::print(&["rbac"]).unwrap();
    let mut young: Value = yaml(&api::crd_yaml());
    let mut old = young.clone();
    forget_rules(&mut old["spec"]["versions"][0]["schema"]);
    install_these(&place.client, &roles, &old.to_string()).await.unwrap();
    // Against a rule of a field, of a block, over several blocks, and of the name.
    let against = WORKSPACE
        .replace("train: {", "labels: [a], train: {")
        .replace("output:", "earlyStopping: {patience: 2}\n  compute: {memory: 4 gigs}\n  output:")
        .replace("name: reviews", &format!("name: {}", "r".repeat(51)));
    let name = "r".repeat(51);
    place.apply(&against).await.unwrap();
    young["metadata"]["labels"] = json!({"is": "young"});
    apply_all(&place.client, &young.to_string()).await.unwrap();
    // The API server takes up another schema in its own time.
    let mut every = tokio::time::interval(Duration::from_millis(200));
    while place.apply(&WORKSPACE.replace("output:", "method: {}\n  output:")).await.is_ok() {
        every.tick().await;
        place.workspaces.delete("reviews", &DeleteParams::default()).await.unwrap();
    }

    let edited = format!("{against}  limits: {{retries: 1}}\n");
    place.apply(&edited).await.unwrap();
    let broken = edited.replace("retries: 1", "retries: 1, deadline: soon");
    let refused = place.apply(&broken).await.unwrap_err();
    assert!(format!("{refused:#}").contains("deadline: is not a length of time"), "{refused:#}");
    let _operator = Operator::start(&place, false).unwrap();
    let told = until(&place.workspaces, &name, |workspace: Option<&FineTuneWorkspace>| {
        workspace.and_then(|workspace| workspace.status.as_ref()?.phase) == Some(Phase::Rejected)
    });
    let status = told.await.unwrap().unwrap().status.unwrap();
    let (_, _, message) = condition(&status, READY);
    assert!(message.contains("spec.earlyStopping: there is no validation loss"), "{message}");
    place.workspaces.delete(&name, &DeleteParams::default()).await.unwrap();
    until(&place.workspaces, &name, |workspace: Option<&_>| workspace.is_none()).await.unwrap();
}

fn forget_rules(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(forget_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_rules),
        _ => {}
    }
}

#[tokio::test]
async fn defaults_are_in_the_schema_and_a_table_shows_what_matters() {
    if !needs_control_plane("defaults_are_in_the_schema_and_a_table_shows_what_matters") {
        return;
    }
    let place = Place::new("table").await.unwrap();
    let made = place.apply(WORKSPACE).await.unwrap();
    let written = serde_json::to_value(&made.spec).unwrap();
    assert_eq!(written["data"]["format"], "Auto");
    assert_eq!(written["suspend"], false);

    let path =
        format!("/apis/anneal.dev/v1alpha1/namespaces/{}/finetuneworkspaces", place.namespace);
    let request = http_request(&path);
    let table: serde_json::Value =
        serde_json::from_str(&place.client.request_text(request).await.unwrap()).unwrap();
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column["priority"] == 0)
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Phase", "Progress", "Loss", "GPU", "Age"]);
    let list = place.workspaces.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
}

fn http_request(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path)
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap()
}
