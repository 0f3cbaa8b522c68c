//! What is written for each provisioner, on an API server that has its definitions: Karpenter's own and the
//! node classes of the clouds, GKE's `ComputeClass`, resource claims. Nothing carries them out here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testkit::cluster::tools::{self, needs_control_plane};
use tests_cluster::{
    Operator, Place, apply_all, install_these, is_established, karpenter, resource, until,
};

use crate::support::{Run, SMALL, ms, output, workspace};

/// Group, version and kind of node classes whose provider's module is not to be had by this toolchain: what
/// the operator looks at is that the kind is served.
const KNOWN_BY_NAME: [(&str, &str, &str); 2] = [
    ("karpenter.azure.com", "v1beta1", "AKSNodeClass"),
    ("karpenter.k8s.gcp", "v1alpha1", "GCENodeClass"),
];

#[tokio::test]
async fn every_provisioners_objects_are_taken() {
    if !needs_control_plane("every_provisioners_objects_are_taken") {
        return;
    }
    let place = Place::alone("clouds").await.unwrap();
    let roles = Operator::print(&["rbac"]).unwrap();
    install_these(&place.client, &roles, &api::crd_yaml()).await.unwrap();
    karpenter::install(&place.client).await.unwrap();
    install_classes(&place).await;
    let _operator = Operator::start(&place, false).unwrap();
    let clouds = [
        ("aws", "kind: EC2NodeClass", "karpenter.k8s.aws", "g6.xlarge"),
        ("azure", "kind: AKSNodeClass", "karpenter.azure.com", "Standard_NV36ads_A10_v5"),
        ("gcp", "kind: GCENodeClass", "karpenter.k8s.gcp", "g2-standard-4"),
    ];
    for (name, class, group, type_) in clouds {
        let nodes = format!(
            "provisioner: Karpenter, nodeClassRef: {{{class}, name: default}}, zones: [z1], \
             capacityType: SpotThenOnDemand, labels: {{team: nlp}}"
        );
        let pool = made(&place, name, &nodes, &resource("karpenter.sh", "v1", "NodePool")).await;
        let template = &pool.data["spec"]["template"];
        assert_eq!(template["spec"]["nodeClassRef"]["group"], group);
        assert_eq!(template["metadata"]["labels"]["team"], "nlp");
        let types = &template["spec"]["requirements"][0]["values"];
        assert!(types.as_array().unwrap().contains(&json!(type_)), "{types}");
        assert_eq!(pool.data["spec"]["limits"]["nvidia.com/gpu"], "1");
    }

    let class = resource("cloud.google.com", "v1", "ComputeClass");
    // Google takes no class whose name begins so.
    let nodes = "provisioner: GKE, zones: [z1], capacityType: SpotThenOnDemand";
    let made_class = made(&place, "gke-run", nodes, &class).await;
    let priorities = made_class.data["spec"]["priorities"].as_array().unwrap();
    assert!(priorities.len() <= 10, "{priorities:?}");
    assert_eq!(priorities[0]["gpu"]["type"], "nvidia-l4");
    assert_eq!(priorities[0]["spot"], true);
    assert_eq!(priorities.last().unwrap()["spot"], false);

    let claim = resource("resource.k8s.io", "v1", "ResourceClaimTemplate");
    let made_claim = made(&place, "dra", "provisioner: DRA", &claim).await;
    let request = &made_claim.data["spec"]["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!(request["deviceClassName"], "gpu.nvidia.com");
}

async fn install_classes(place: &Place) {
    let definitions: Api<CustomResourceDefinition> = Api::all(place.client.clone());
    let module = tokio::task::spawn_blocking(|| {
        tools::module("aws", "github.com/aws/karpenter-provider-aws").unwrap()
    });
    let module = module.await.unwrap();
    let file = module.join("pkg/apis/crds/karpenter.k8s.aws_ec2nodeclasses.yaml");
    apply_all(&place.client, &std::fs::read_to_string(file).unwrap()).await.unwrap();
    apply_all(&place.client, include_str!("compute-class.yaml")).await.unwrap();
    let mut names = vec![
        "ec2nodeclasses.karpenter.k8s.aws".to_owned(),
        "computeclasses.cloud.google.com".to_owned(),
    ];
    for (group, version, kind) in KNOWN_BY_NAME {
        let plural = format!("{}es", kind.to_lowercase());
        let name = format!("{plural}.{group}");
        let any = json!({"openAPIV3Schema": {"type": "object",
            "x-kubernetes-preserve-unknown-fields": true}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {"group": group, "scope": "Cluster",
                "names": {"kind": kind, "plural": plural},
                "versions": [{"name": version, "served": true, "storage": true, "schema": any}]}});
        apply_all(&place.client, &definition.to_string()).await.unwrap();
        names.push(name);
    }
    for name in names {
        until(&definitions, &name, is_established).await.unwrap();
    }
}

/// What is made for a workspace with these nodes: its only object of the kind. The API server, asked with
/// every field checked, would take it again; then the workspace goes, and the object with it.
async fn made(place: &Place, name: &str, nodes: &str, kind: &ApiResource) -> DynamicObject {
    let run = Run { place, name };
    let text = workspace(name, nodes, &output(None));
    // Claims are of nodes that are there: they have no idle time.
    let text = if kind.kind == "ResourceClaimTemplate" {
        text.replace("ttlAfterIdle: 10s, ", "")
    } else {
        text
    };
    place.apply(&text).await.unwrap();
    run.preflight(SMALL).await;
    let is_namespaced = kind.kind == "ResourceClaimTemplate";
    let api: Api<DynamicObject> = if is_namespaced {
        Api::namespaced_with(place.client.clone(), &place.namespace, kind)
    } else {
        Api::all_with(place.client.clone(), kind)
    };
    let ours = ListParams::default().labels(&format!("{}={name}", plan::names::WORKSPACE));
    let mut every = tokio::time::interval(ms(100));
    let found = loop {
        every.tick().await;
        if let Some(found) = api.list(&ours).await.unwrap().items.pop() {
            break found;
        }
    };
    let object: Value = json!({"apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": {"name": found.name_any()}, "spec": found.data["spec"]});
    let strictly = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply("strict").dry_run()
    };
    api.patch(&found.name_any(), &strictly.force(), &Patch::Apply(&object)).await.unwrap();
    if !is_namespaced {
        place.workspaces.delete(name, &DeleteParams::default()).await.unwrap();
        gone(&api, &found.name_any()).await;
    }
    found
}

async fn gone(api: &Api<DynamicObject>, name: &str) {
    let mut every = tokio::time::interval(ms(200));
    for _ in 0..300 {
        every.tick().await;
        if api.get_opt(name).await.unwrap().is_none() {
            return;
        }
    }
    unreachable!("{name} is there still");
}
