//! Argo CD's health of a workspace, over the statuses that the operator writes in every phase.

use std::collections::BTreeSet;

use mlua::{Lua, LuaSerdeExt as _, Value as LuaValue};
use serde_json::{Value, json};

use crate::support::{read, repository};

/// Status and message that the script gives.
fn health(object: &Value) -> (String, String) {
    let lua = Lua::new();
    // As Argo CD has it: what is absent is nil.
    let options = mlua::serde::SerializeOptions::new()
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    let object = lua.to_value_with(object, options).unwrap();
    lua.globals().set("obj", object).unwrap();
    let health: LuaValue = lua.load(read("deploy/argocd/health.lua")).eval().unwrap();
    let health: Value = lua.from_value(health).unwrap();
    let word = |name: &str| health[name].as_str().unwrap_or_default().to_owned();
    (word("status"), word("message"))
}

#[test]
fn every_phase_has_its_health() {
    let mut phases = BTreeSet::new();
    for entry in std::fs::read_dir(repository("crates/plan/tests/cases")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(plan) = std::fs::read_to_string(folder.join("plan.yaml")) else { continue };
        let plan: Value = serde_yaml::from_str(&plan).unwrap();
        let Some(phase) = plan["status"]["phase"].as_str() else { continue };
        phases.insert(phase.to_owned());
        let generation = &plan["status"]["observedGeneration"];
        let object = json!({"metadata": {"generation": generation}, "status": plan["status"]});
        let wanted = match phase {
            "Succeeded" => "Healthy",
            "Failed" | "Rejected" => "Degraded",
            "Suspended" => "Suspended",
            _ => "Progressing",
        };
        let (status, message) = health(&object);
        assert_eq!(status, wanted, "{}: {message}", folder.display());
        assert!(message.contains(": "), "{}: {message}", folder.display());

        // A newer change has not been looked at.
        let generation = generation.as_i64().unwrap_or(0) + 1;
        let object = json!({"metadata": {"generation": generation}, "status": plan["status"]});
        assert_eq!(health(&object).0, "Progressing");
    }
    assert_eq!(phases.len(), 10, "there is no case of some phase: {phases:?}");
}

#[test]
fn what_is_new_or_deleted_is_on_its_way() {
    let (status, message) = health(&json!({"metadata": {"generation": 1}}));
    assert_eq!(
        (status.as_str(), message.as_str()),
        ("Progressing", "the operator has not looked at it yet")
    );
    let conditions =
        json!([{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "m"}]);
    let object = json!({
        "metadata": {"generation": 1, "deletionTimestamp": "2026-11-25T10:00:00Z"},
        "status": {"observedGeneration": 1, "conditions": conditions},
    });
    assert_eq!(health(&object), ("Progressing".to_owned(), "it is being deleted".to_owned()));
}
