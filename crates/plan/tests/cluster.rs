//! Plans for a cluster: `cases/BEHAVIOUR/{workspace,observed}.yaml` in, `plan.yaml` out.
//! `UPDATE_GOLDEN=1` writes the plans anew. The situation is in short form: see `situation`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api::FineTuneWorkspace;
use api::condition::{READY, Reason};
use api::workspace::Phase;
use plan::{Next, Plan, plan};

#[path = "situation/mod.rs"]
mod situation;

use situation::{Situation, stage};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let cases = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = cases.filter(|path| path.join("observed.yaml").exists()).collect();
    cases.sort();
    cases
}

fn decide(case: &Path) -> (FineTuneWorkspace, Plan, plan::Observed) {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
    let workspace: FineTuneWorkspace = serde_yaml::from_str(&read("workspace.yaml")).unwrap();
    let now: Situation = serde_yaml::from_str(&read("observed.yaml")).unwrap();
    let (workspace, observed) = stage(workspace, &now);
    let plan = plan(&workspace, &observed);
    (workspace, plan, observed)
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
fn there_is_a_case_for_every_phase_and_every_reason() {
    let (mut phases, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for case in cases() {
        let (_, plan, _) = decide(&case);
        // One that is being deleted says nothing more.
        let Some(phase) = plan.status.phase else { continue };
        phases.insert(format!("{phase:?}"));
        let ready = plan.status.conditions.iter().find(|one| one.type_ == READY).unwrap();
        reasons.insert(ready.reason.clone());
    }
    for phase in [
        Phase::Rejected,
        Phase::Preflight,
        Phase::Queued,
        Phase::Provisioning,
        Phase::Training,
        Phase::Publishing,
        Phase::Evaluating,
        Phase::Succeeded,
        Phase::Failed,
        Phase::Suspended,
    ] {
        assert!(phases.contains(&format!("{phase:?}")), "no case ends in phase {phase:?}");
    }
    for reason in Reason::ALL {
        assert!(reasons.contains(reason.as_str()), "no case ends with reason {reason}");
    }
}

/// After a plan was carried out, the next one writes nothing more, unless the cluster moves.
#[test]
fn a_plan_that_was_carried_out_is_followed_by_none() {
    for case in cases() {
        let name = case.display();
        let (mut workspace, first, mut observed) = decide(&case);
        let mut plan = first;
        for _ in 0..4 {
            for removal in &plan.delete {
                observed.jobs.retain(|job| job.metadata.name.as_ref() != Some(&removal.name));
                observed.pools.retain(|pool| pool.metadata.name.as_ref() != Some(&removal.name));
                observed
                    .config_maps
                    .retain(|map| map.metadata.name.as_ref() != Some(&removal.name));
            }
            for object in std::mem::take(&mut plan.apply) {
                situation::put(&mut observed, object);
            }
            workspace.status = Some(plan.status.clone());
            plan = plan::plan(&workspace, &observed);
        }
        assert!(plan.apply.is_empty() && plan.delete.is_empty(), "{name}: {plan:#?}");
        assert_eq!(Some(&plan.status), workspace.status.as_ref(), "{name}");
        assert_eq!(plan.happening, None, "{name}");
        assert_ne!(plan.next, Next::After(std::time::Duration::ZERO), "{name}");
    }
}
