//! `samples/RULE.yaml`: a workspace that a rule lets pass, and one that it does not; `server_samples/RULE.yaml`:
//! the same of a server. What the API server says of them is in `tests/cluster`; here it is what we say.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

#[test]
fn each_rule_has_one_that_passes_and_one_that_does_not() {
    let load = |name: &str, text: &str| api::load(name, text).map(drop);
    check("samples", &api::crd_yaml(), load, 60);
}

#[test]
fn each_rule_of_a_server_has_one_that_passes_and_one_that_does_not() {
    let load = |name: &str, text: &str| api::yaml::load_server(name, text).map(drop);
    check("server_samples", &api::model_server_crd_yaml(), load, 20);
}

fn check(
    folder: &str,
    crd: &str,
    load: impl Fn(&str, &str) -> Result<(), Vec<api::Fault>>,
    least: usize,
) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut said = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let (accepted, refused) = text.split_once("\n---\n").unwrap();
        assert!(load(&name, accepted).is_ok(), "{name}: {:?}", load(&name, accepted));
        let faults = load(&name, refused).unwrap_err();
        assert_eq!(faults.len(), 1, "{name}: {faults:?}");
        let first = text.lines().next().unwrap();
        said.push(first.strip_prefix("# Accepted, and refused: ").unwrap().to_owned());
    }
    // Every rule of the definition is the one that refuses some sample.
    let definition: serde_json::Value = serde_yaml::from_str(crd).unwrap();
    let mut messages = Vec::new();
    collect(&definition, &mut messages);
    assert!(messages.len() > least, "only {} rules", messages.len());
    for message in messages {
        assert!(said.iter().any(|said| message.contains(said)), "no sample is for: {message}");
    }
}

fn collect(value: &serde_json::Value, messages: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            if let Some(rules) =
                fields.get("x-kubernetes-validations").and_then(|all| all.as_array())
            {
                let all = rules.iter().map(|rule| rule["message"].as_str().unwrap().to_owned());
                messages.extend(all);
            }
            fields.values().for_each(|value| collect(value, messages));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, messages)),
        _ => {}
    }
}
