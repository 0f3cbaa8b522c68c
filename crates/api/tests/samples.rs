//! `samples/RULE.yaml`: a workspace that a rule lets pass, and one that it does not. What the API server says
//! of them is in `tests/cluster`; here it is what `anneal validate` says.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

#[test]
fn each_rule_has_one_that_passes_and_one_that_does_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let crd = api::crd_yaml();
    let mut said = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let (accepted, refused) = text.split_once("\n---\n").unwrap();
        assert!(api::load(&name, accepted).is_ok(), "{name}: {:?}", api::load(&name, accepted));
        let faults = api::load(&name, refused).unwrap_err();
        assert_eq!(faults.len(), 1, "{name}: {faults:?}");
        let first = text.lines().next().unwrap();
        said.push(first.strip_prefix("# Accepted, and refused: ").unwrap().to_owned());
    }
    // Every rule of the definition is the one that refuses some sample.
    let definition: serde_json::Value = serde_yaml::from_str(&crd).unwrap();
    let mut messages = Vec::new();
    collect(&definition, &mut messages);
    assert!(messages.len() > 60, "only {} rules", messages.len());
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
