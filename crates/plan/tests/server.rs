//! Plans for servers: `server_cases/BEHAVIOUR/{server,observed}.yaml` in, `plan.yaml` out. `UPDATE_GOLDEN=1`
//! writes the plans anew. The situation is in short form: see `server_situation`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api::ModelServer;
use api::condition::{READY, ServerReason};
use plan::server::observed::ServerObserved;
use plan::{Next, ServerPlan, plan_server};

#[path = "server_situation/mod.rs"]
mod server_situation;

use server_situation::{Situation, carry_out, stage};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server_cases");
    let mut cases: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn decide(case: &Path) -> (ModelServer, ServerPlan, ServerObserved) {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
    let server: ModelServer = serde_yaml::from_str(&read("server.yaml")).unwrap();
    let now: Situation = serde_yaml::from_str(&read("observed.yaml")).unwrap();
    let (server, observed) = stage(server, &now);
    let plan = plan_server(&server, &observed);
    (server, plan, observed)
}

#[test]
fn plans_are_as_they_were() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (_, plan, _) = decide(&case);
        let found = serde_yaml::to_string(&serde_json::to_value(&plan).unwrap()).unwrap();
        let path = case.join("plan.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &found).unwrap();
        }
        let expected = fs::read_to_string(path).unwrap_or_default();
        if found != expected {
            let case = case.display();
            wrong.push(format!("{case}\n--- expected\n{expected}\n--- found\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn there_is_a_case_for_every_reason() {
    let mut reasons = BTreeSet::new();
    for case in cases() {
        let (_, plan, _) = decide(&case);
        let ready = plan.status.conditions.iter().find(|one| one.type_ == READY).unwrap();
        reasons.insert(ready.reason.clone());
    }
    for reason in ServerReason::ALL {
        assert!(reasons.contains(reason.as_str()), "no case ends with reason {reason}");
    }
}

/// After a plan was carried out, the next one writes and tells nothing more, unless the cluster moves.
#[test]
fn a_plan_that_was_carried_out_is_followed_by_none() {
    for case in cases() {
        let name = case.display();
        let (mut server, first, mut observed) = decide(&case);
        let mut plan = first;
        for _ in 0..3 {
            carry_out(&mut observed, &plan);
            server.status = Some(plan.status.clone());
            plan = plan_server(&server, &observed);
        }
        let is_quiet = plan.apply.is_empty() && plan.delete.is_empty() && plan.tell.is_empty();
        assert!(is_quiet, "{name}: {plan:#?}");
        assert_eq!(Some(&plan.status), server.status.as_ref(), "{name}");
        assert_eq!(plan.happening, None, "{name}");
        assert_ne!(plan.next, Next::After(std::time::Duration::ZERO), "{name}");
    }
}

/// What changes no pod: adapters. What changes them: the base model.
#[test]
fn adapters_never_touch_the_pods() {
    let (server, _, observed) =
        decide(&cases().into_iter().find(|c| c.ends_with("serving")).unwrap());
    let template = |server: &ModelServer| {
        let fresh = ServerObserved { deployment: None, ..observed.clone() };
        let objects = plan_server(server, &fresh).apply;
        let found = objects.into_iter().find_map(|object| match object {
            plan::ServerObject::Deployment(deployment) => Some(deployment.spec.unwrap().template),
            _ => None,
        });
        found.unwrap()
    };
    let mut other = server.clone();
    other.spec.adapters.clear();
    assert_eq!(template(&server), template(&other));
    other.spec.base_model.image = Some("registry.example.com/models/smollm2:360m".to_owned());
    assert_ne!(template(&server), template(&other));
}
