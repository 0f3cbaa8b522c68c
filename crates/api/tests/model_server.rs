//! `ModelServer`: what is read, and what is told of mistakes.
#![expect(clippy::unwrap_used, reason = "tests")]

use api::model_server::Engine;

fn load(spec: &str) -> Result<api::ModelServer, Vec<String>> {
    let text = format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: ModelServer\nmetadata: {{name: base}}\nspec:\n{spec}"
    );
    let told = |fault: &api::Fault| {
        let place = fault.field.clone().unwrap_or_default();
        format!("{}:{place}: {}", fault.line.unwrap_or_default(), fault.message)
    };
    api::yaml::load_server("s.yaml", &text).map_err(|faults| faults.iter().map(told).collect())
}

#[test]
fn a_server_is_read_whole() {
    let server = load(
        "  baseModel: {path: m}\n  adapters:\n  - {name: a, workspace: reviews}\n  \
         - {name: b/c:1, image: 'r.example.com/x:1', pullSecret: s}\n  limits: {cacheMemory: 2Gi}\n",
    )
    .unwrap();
    assert_eq!(server.spec.engine, Engine::Anneal);
    assert_eq!(server.spec.adapters[0].workspace.as_deref(), Some("reviews"));
    assert_eq!(server.spec.adapters[1].name, "b/c:1");
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let faults = load(
        "  baseModel: {path: m, image: 'r.example.com/m:1'}\n  engine: vLLM\n  replicas: 2\n  \
         autoscaling: {minReplicas: 3, maxReplicas: 2}\n  adapters:\n  - {name: base, path: x}\n  \
         - {name: a b, path: x}\n  - {name: c}\n  - {name: d, image: x, path: y, revision: z}\n  \
         limits: {cacheMemory: much}\n",
    );
    let expected = [
        "5:spec.baseModel: path and image exclude each other",
        "6:spec.engine: `vLLM` is not one of Anneal, VLLM",
        "7:spec.replicas: replicas and autoscaling exclude each other",
        "8:spec.autoscaling.minReplicas: minReplicas is above maxReplicas",
        "10:spec.adapters[0].name: the name `base` is taken",
        "11:spec.adapters[1].name: `a b` is no name: letters, digits and -_.:/ make one",
        "12:spec.adapters[2]: nothing is chosen",
        "13:spec.adapters[3]: image and path exclude each other",
        "13:spec.adapters[3].revision: needs `workspace` beside it",
        "14:spec.limits.cacheMemory: `much` is not a quantity of memory",
    ];
    assert_eq!(faults.unwrap_err(), expected);
}

#[test]
fn the_samples_have_no_fault() {
    for name in ["model-server", "model-server-in-a-cluster"] {
        let path = format!("{}/../../deploy/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let server = api::yaml::load_server("s.yaml", &text).unwrap();
        assert_eq!(server.spec.adapters.len(), 2);
    }
}

#[test]
fn a_misspelt_field_is_told() {
    let faults = load("  baseModel: {path: m}\n  adapters:\n  - {name: d, pth: y}\n");
    assert_eq!(faults.unwrap_err(), ["7:spec.adapters[0].pth: is not a known field"]);
}

#[test]
fn the_definition_has_the_scale_subresource_and_its_rules() {
    let crd = api::model_server_crd_yaml();
    for part in ["specReplicasPath: .spec.replicas", "set exactly one of workspace, image, path"] {
        assert!(crd.contains(part), "{part}");
    }
}
