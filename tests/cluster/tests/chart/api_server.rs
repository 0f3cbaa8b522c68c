//! What we ship is taken by a real API server, as kubectl and helm send it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_yaml::Value;
use testkit::cluster::tools::needs_control_plane;
use testkit::cluster::{ControlPlane, User};
use tests_cluster::{Operator, Place, client, is_established, until};

use crate::render::{SETS, render};
use crate::support::{ended, objects, read, repository, tool, well, yaml};

/// Groups whose definitions are not to be had as a Go module of this toolchain: what is left out of the
/// dry run.
const LEFT_OUT: [&str; 4] = [
    "monitoring.googleapis.com",
    "argoproj.io",
    "source.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
];

/// Every object of every set of values, of `deploy` and of the samples, with unknown fields refused; and
/// the operator's pod passes the `restricted` level.
#[tokio::test]
async fn every_object_is_taken() {
    if !needs_control_plane("every_object_is_taken") {
        return;
    }
    let place = Place::new("chart").await.unwrap();
    warn_at_restricted(&place).await;
    install_monitoring(&place).await;
    for (name, values) in SETS {
        let mut objects = objects(&render(values, &[]).unwrap());
        objects.retain(|object| !LEFT_OUT.contains(&group(object)));
        for object in &mut objects {
            // Azure's are the same kinds in a group of its own.
            if group(object) == "azmonitoring.coreos.com" {
                object["apiVersion"] = Value::from("monitoring.coreos.com/v1");
            }
        }
        assert!(objects.len() > 10, "{name}: {}", objects.len());
        let file = place.plane.kubeconfig(User::Admin).with_file_name(format!("{name}.yaml"));
        std::fs::write(&file, yaml(&objects)).unwrap();
        dry_run(&place, "-f", &file.display().to_string(), &[]);
    }
    for folder in ["deploy", "deploy/alerts"] {
        dry_run(&place, "-k", &repository(folder).display().to_string(), &[]);
    }
    let mut command = kubectl(place.plane);
    command.args(["kustomize"]).arg(repository("deploy/dashboards"));
    let dashboard = &objects(&well(&mut command))[0];
    assert_eq!(
        dashboard["data"]["anneal.json"].as_str().unwrap(),
        read("deploy/dashboards/anneal.json")
    );
    for sample in ["in-a-cluster", "model-server-in-a-cluster"] {
        let sample = repository(&format!("deploy/samples/{sample}.yaml")).display().to_string();
        dry_run(&place, "-f", &sample, &["--namespace", &place.namespace]);
    }
}

fn dry_run(place: &Place, how: &str, what: &str, more: &[&str]) {
    let mut command = kubectl(place.plane);
    command.args(["apply", "--server-side", "--force-conflicts", "--dry-run=server"]);
    command.args(["--validate=strict", how, what]).args(more);
    let (is_well, text, errors) = ended(&mut command).unwrap();
    assert!(is_well && !errors.contains("Warning"), "{what}\n{text}{errors}");
    assert!(text.contains("(server dry run)"), "{what}\n{text}{errors}");
}

fn kubectl(plane: &ControlPlane) -> std::process::Command {
    let mut command = tool("kubectl");
    command.env("KUBECONFIG", plane.kubeconfig(User::Admin));
    command
}

fn group(object: &Value) -> &str {
    object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |it| it.0)
}

/// The API server warns of pods that a namespace would refuse.
async fn warn_at_restricted(place: &Place) {
    let label =
        BTreeMap::from([("pod-security.kubernetes.io/warn".to_owned(), "restricted".to_owned())]);
    let metadata = ObjectMeta { labels: Some(label), ..ObjectMeta::default() };
    let patch = Patch::Merge(Namespace { metadata, ..Namespace::default() });
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces.patch("anneal-system", &PatchParams::default(), &patch).await.unwrap();
}

/// The Prometheus operator's definitions, out of its Go module.
async fn install_monitoring(place: &Place) {
    let mut go = std::process::Command::new("go");
    go.args(["mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator"]);
    go.env("GOFLAGS", "-mod=readonly").current_dir(repository("tests/cluster/tools/monitoring"));
    let module: serde_json::Value = serde_json::from_str(&well(&mut go)).unwrap();
    let folder = format!("{}/example/prometheus-operator-crd", module["Dir"].as_str().unwrap());
    for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
        let file = format!("{folder}/monitoring.coreos.com_{kind}.yaml");
        well(kubectl(place.plane).args(["apply", "--server-side", "-f", &file]));
        let definitions: Api<CustomResourceDefinition> = Api::all(place.client.clone());
        let name = format!("{kind}.monitoring.coreos.com");
        until(&definitions, &name, is_established).await.unwrap();
    }
}

/// Install, upgrade and removal by helm: a workspace and the definition outlive all of it, and nothing
/// else does.
#[tokio::test]
async fn helm_installs_upgrades_and_removes() {
    if !needs_control_plane("helm_installs_upgrades_and_removes") {
        return;
    }
    // On an API server of its own: the other tests' has our definition already.
    let plane = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap().unwrap();
    let client = client(&plane, User::Admin).await.unwrap();
    let helm = |arguments: &[&str]| {
        let mut command = tool("helm");
        command.env("KUBECONFIG", plane.kubeconfig(User::Admin));
        command.args(arguments).args(["--namespace", "anneal-system"]);
        well(&mut command)
    };
    // An operator that is there before the definition lives, and is not ready.
    let arguments = ["--lease-namespace", "anneal-system"];
    let operator =
        Operator::start_with(&plane.kubeconfig(User::Admin), "info", &arguments).unwrap();
    let ready = operator.ask("/readyz").await.unwrap();
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.ends_with("waiting for the custom resource definition"), "{ready}");
    assert!(operator.ask("/healthz").await.unwrap().starts_with("HTTP/1.1 200"));

    let chart = repository("charts/anneal").display().to_string();
    let notes = helm(&["install", "anneal", &chart, "--create-namespace"]);
    assert!(notes.contains("rollout status deployment/anneal-operator\n"), "{notes}");
    assert!(notes.contains("port-forward service/anneal-operator"), "{notes}");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    until(&definitions, "finetuneworkspaces.anneal.dev", is_established).await.unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(200));
    let mut ready = String::new();
    for _ in 0..150 {
        every.tick().await;
        ready = operator.ask("/readyz").await.unwrap();
        if ready.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    drop(operator);
    let kubectl = |arguments: &[&str]| well(kubectl(&plane).args(arguments));
    let sample = repository("deploy/samples/in-a-cluster.yaml").display().to_string();
    kubectl(&["apply", "--namespace", "default", "-f", &sample]);
    let before = kubectl(&["get", "ftw", "reviews", "-o", "jsonpath={.metadata.uid}"]);

    let set = "replicas=2,namespace=team,serviceMonitor.enabled=false,log=debug";
    kubectl(&["create", "namespace", "team"]);
    let notes = helm(&["upgrade", "anneal", &chart, "--set", set]);
    assert!(notes.contains("looks at namespace team alone"), "{notes}");
    assert!(notes.contains("kubectl -n team apply"), "{notes}");
    let get = ["get", "deployment,pdb,role,rolebinding", "-A", "-o", "name", "-l"];
    let ours = "app.kubernetes.io/instance=anneal";
    let left = kubectl(&[&get[..], &[ours]].concat());
    assert!(left.contains("deployment.apps/anneal-operator"), "{left}");
    assert!(left.contains("poddisruptionbudget.policy/anneal-operator"), "{left}");
    assert!(left.contains("role.rbac.authorization.k8s.io/anneal-operator-workspaces"), "{left}");
    let cluster = ["get", "clusterroles,clusterrolebindings", "-o", "name", "-l", ours];
    assert!(!kubectl(&cluster).contains("workspaces"), "rights in all namespaces are left");

    helm(&["uninstall", "anneal"]);
    let everything =
        "deployment,service,serviceaccount,pdb,networkpolicy,configmap,role,rolebinding";
    let left = kubectl(&["get", everything, "-A", "-o", "name", "-l", ours]);
    assert_eq!(left + &kubectl(&cluster), "");
    let after = kubectl(&["get", "ftw", "reviews", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(before, after, "the workspace is another");
    let kept = definitions.list(&ListParams::default()).await.unwrap().items;
    let kept: Vec<String> = kept.iter().map(ResourceExt::name_any).collect();
    assert_eq!(kept, ["finetuneworkspaces.anneal.dev", "modelservers.anneal.dev"]);
}

/// People's roles go into the cluster's own, and give what they say.
#[tokio::test]
async fn people_get_what_their_role_says() {
    if !needs_control_plane("people_get_what_their_role_says") {
        return;
    }
    let place = Place::new("people").await.unwrap();
    let roles = objects(&render(None, &[]).unwrap());
    let aggregated = |object: &&Value| {
        object["metadata"]["labels"].as_mapping().is_some_and(|labels| {
            labels.keys().any(|key| key.as_str().unwrap_or_default().contains("aggregate-to"))
        })
    };
    let roles: Vec<Value> = roles.iter().filter(aggregated).cloned().collect();
    let verbs = |role: &str| {
        let name = format!("anneal-{role}");
        let role =
            roles.iter().find(|one| one["metadata"]["name"].as_str() == Some(&name)).unwrap();
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{}", &name["anneal-".len()..]);
        assert_eq!(role["metadata"]["labels"][label.as_str()], "true");
        serde_json::to_string(&role["rules"][0]["verbs"]).unwrap()
    };
    assert_eq!(verbs("view"), r#"["get","list","watch"]"#);
    assert_eq!(verbs("edit"), r#"["create","update","patch","delete"]"#);
    assert_eq!(verbs("admin"), r#"["deletecollection"]"#);
    // `deploy` has the same.
    let people = objects(&read("deploy/rbac/people.yaml"));
    assert_eq!(people.len(), roles.len());
    for theirs in people {
        let name = &theirs["metadata"]["name"];
        let ours = roles.iter().find(|one| one["metadata"]["name"] == *name).unwrap();
        assert_eq!(ours["rules"], theirs["rules"]);
    }
    let file = place.plane.kubeconfig(User::Admin).with_file_name("roles.yaml");
    std::fs::write(&file, yaml(&roles)).unwrap();
    well(kubectl(place.plane).args(["apply", "--server-side", "-f"]).arg(&file));
}
