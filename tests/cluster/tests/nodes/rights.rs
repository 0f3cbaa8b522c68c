//! What the operator may do with nodes, and a cluster that gets Karpenter's definitions later.

use api::workspace::Phase;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use testkit::cluster::User;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Operator, Place, client, install_these, karpenter};

use crate::support::{Run, SMALL, output, ready, workspace};

/// It makes pools and deletes them; nodes and claims are Karpenter's to write.
#[tokio::test]
async fn nodes_are_not_the_operators_to_write() {
    if !needs_control_plane("nodes_are_not_the_operators_to_write") {
        return;
    }
    let place = Place::new("rights").await.unwrap();
    let api: Api<SelfSubjectAccessReview> =
        Api::all(client(place.plane, User::Operator).await.unwrap());
    let may = async |group: &str, resource: &str, verb: &str| {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let ask = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        api.create(&PostParams::default(), &ask).await.unwrap().status.unwrap().allowed
    };
    assert!(may("", "nodes", "get").await);
    assert!(may("karpenter.sh", "nodepools", "delete").await);
    for verb in ["create", "update", "patch", "delete", "deletecollection"] {
        assert!(!may("", "nodes", verb).await, "{verb} nodes");
        assert!(!may("karpenter.sh", "nodeclaims", verb).await, "{verb} nodeclaims");
    }
    for verb in ["update", "deletecollection", "watch"] {
        assert!(!may("karpenter.sh", "nodepools", verb).await, "{verb} nodepools");
    }
}

/// A cluster without Karpenter: the status says what is missing. Once its definitions are installed the run
/// goes on by itself.
#[tokio::test]
async fn definitions_that_come_later() {
    if !needs_control_plane("definitions_that_come_later") {
        return;
    }
    let place = Place::alone("later").await.unwrap();
    let roles = Operator::print(&["rbac"]).unwrap();
    install_these(&place.client, &roles, &api::crd_yaml()).await.unwrap();
    let _operator = Operator::start(&place, false).unwrap();
    let run = Run { place: &place, name: "reviews" };
    let nodes = "provisioner: Karpenter, nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, \
                 name: default}";
    place.apply(&workspace("reviews", nodes, &output(None))).await.unwrap();
    run.preflight(SMALL).await;
    let status = run.until(|status| ready(status).0 == "ProvisionerMissing").await;
    assert_eq!(status.phase, Some(Phase::Queued));
    assert!(ready(&status).1.contains("NodePool (karpenter.sh/v1)"), "{status:?}");
    karpenter::install(&place.client).await.unwrap();
    let pool = run.pool().await;
    let made = run.capacity(&pool).await.pool.unwrap();
    assert_eq!(made.data["spec"]["template"]["spec"]["nodeClassRef"]["kind"], "EC2NodeClass");
}
