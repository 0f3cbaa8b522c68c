//! Whole plans: `cases/BEHAVIOUR/{workspace,facts}.yaml` in, `resolved.yaml` out, which holds the plan or
//! the faults. `UPDATE_GOLDEN=1` writes the results anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use api::ModelFacts;
use plan::{Inputs, resolve};
use serde_yaml::Value;

#[path = "shapes/mod.rs"]
mod shapes;

#[test]
fn plans_are_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let case = entry.unwrap().path();
        // The other cases are plans for a cluster: see `cluster.rs`.
        if case.join("facts.yaml").exists() {
            count += 1;
            wrong.extend(check(&case));
        }
    }
    assert!(count >= 8, "only {count} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(case: &Path) -> Option<String> {
    let name = case.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(case.join("workspace.yaml")).unwrap();
    let (workspace, document) = api::load("workspace.yaml", &text).unwrap();
    let found = match resolve(&workspace, &inputs(&case.join("facts.yaml"))) {
        // Through JSON, as the files on disk are: YAML would write enums as tags.
        Ok(resolved) => serde_yaml::to_string(&serde_json::to_value(&resolved).unwrap()).unwrap(),
        Err(faults) => faults
            .into_iter()
            .map(|fault| format!("{}\n", document.positions.locate(fault)))
            .collect(),
    };
    let path = case.join("resolved.yaml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    (found != expected).then(|| format!("{name}\n--- expected\n{expected}\n--- found\n{found}"))
}

/// Facts with the model by name, since a real one has hundreds of layers.
fn inputs(path: &Path) -> Inputs {
    let mut facts: Value = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let model: ModelFacts = shapes::named(facts["model"].as_str().unwrap());
    facts["model"] = serde_yaml::to_value(model).unwrap();
    serde_yaml::from_value(facts).unwrap()
}
