//! The custom resource definition: every rule with one sample that is accepted and one that is not, by
//! the API server and by `anneal validate`.

use api::FineTuneWorkspace;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Place, WORKSPACE};

/// What is replaced in the smallest workspace, what stands there when it is accepted, and when not.
const RULES: &[(&str, &str, &str)] = &[
    ("name: reviews", "name: reviews-2", "name: reviews.2"),
    (
        "name: reviews",
        "name: a2345678901234567890123456789012345678901234567890",
        "name: a23456789012345678901234567890123456789012345678901",
    ),
    (
        "baseModel: {image: \"registry.example.com/models/smollm2:135m\"}",
        "baseModel: {huggingFace: {repo: a/b}}",
        "baseModel: {image: a.io/b, huggingFace: {repo: a/b}}",
    ),
    (
        "baseModel: {image: \"registry.example.com/models/smollm2:135m\"}",
        "baseModel: {path: m}",
        "baseModel: {}",
    ),
    (
        "train: {image: \"registry.example.com/data/reviews:1\"}",
        "train: {paths: [a, b]}",
        "train: {path: a, image: a.io/b}",
    ),
    (
        "train: {image: \"registry.example.com/data/reviews:1\"}",
        "train: {image: a.io/b}, validation: {fraction: 0.1}",
        "train: {image: a.io/b}, validation: {fraction: 0.1, image: a.io/c}",
    ),
    (
        "train: {image: \"registry.example.com/data/reviews:1\"}",
        "train: {image: a.io/b}, columns: {prompt: q}",
        "train: {image: a.io/b}, columns: {prompt: q}, template: {prompt: a, completion: b}",
    ),
    ("  output:", "  method: {sft: {}}\n  output:", "  method: {}\n  output:"),
    ("  output:", "  adapter: {full: {}}\n  output:", "  adapter: {full: {}, lora: {}}\n  output:"),
    (
        "  output:",
        "  hyperparameters: {epochs: 2}\n  output:",
        "  hyperparameters: {epochs: 2, maxSteps: 3}\n  output:",
    ),
    (
        "  output:",
        "  hyperparameters: {learningRate: 0.1}\n  output:",
        "  hyperparameters: {learningRate: 0.1, learningRateMultiplier: 2}\n  output:",
    ),
    (
        "  output:",
        "  hyperparameters: {warmupSteps: 2}\n  output:",
        "  hyperparameters: {warmupSteps: 2, warmupRatio: 0.1}\n  output:",
    ),
    (
        "  output:",
        "  hyperparameters: {batchSize: 4}\n  output:",
        "  hyperparameters: {batchSize: 0}\n  output:",
    ),
    (
        "  output:",
        "  compute: {gpus: 1}\n  output:",
        "  compute: {gpus: 1, device: CPU}\n  output:",
    ),
    ("  output:", "  compute: {gpus: 8}\n  output:", "  compute: {gpus: 65}\n  output:"),
    ("  output:", "  limits: {retries: 0}\n  output:", "  limits: {retries: 101}\n  output:"),
    (
        "  output:",
        "  hyperparameters: {schedule: Cosine}\n  output:",
        "  hyperparameters: {schedule: cosine}\n  output:",
    ),
];

#[tokio::test]
async fn api_server_and_validate_give_the_same_verdict() {
    if !needs_control_plane("api_server_and_validate_give_the_same_verdict") {
        return;
    }
    let place = Place::new("definition").await.unwrap();
    let resource = ApiResource::erase::<FineTuneWorkspace>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(place.client.clone(), &place.namespace, &resource);
    let dry = PostParams { dry_run: true, field_manager: None };
    for (from, accepted, refused) in RULES {
        assert!(WORKSPACE.contains(from), "{from}");
        for (to, is_accepted) in [(accepted, true), (refused, false)] {
            let text = WORKSPACE.replace(from, to);
            let object: DynamicObject = serde_yaml::from_str(&text).unwrap();
            let answer = api.create(&dry, &object).await;
            assert_eq!(answer.is_ok(), is_accepted, "{text}\n{answer:?}");
            let verdict = api::load("w.yaml", &text);
            assert_eq!(verdict.is_ok(), is_accepted, "{text}\n{verdict:?}");
        }
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
