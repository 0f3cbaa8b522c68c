//! Rules of the fields that only a run in a cluster uses.

use std::time::Duration;

use super::Faults;
use crate::names::{parse_duration, parse_object_name};
use crate::valid::{Limits, Secrets};
use crate::workspace::{FineTuneWorkspaceSpec, LimitsSpec};

/// Retries of a workspace that states none.
const RETRIES: u32 = 3;
/// The stall limit of a workspace that states none.
const STALL: Duration = Duration::from_mins(30);

pub(super) fn limits(raw: Option<&LimitsSpec>, faults: &mut Faults) -> Limits {
    let raw = raw.cloned().unwrap_or_default();
    let mut duration = |name: &str, text: Option<&String>| -> Option<Duration> {
        faults.name(&format!("spec.limits.{name}"), parse_duration(text?))
    };
    Limits {
        deadline: duration("deadline", raw.deadline.as_ref()),
        retries: raw.retries.unwrap_or(RETRIES),
        stall: duration("stall", raw.stall.as_ref()).unwrap_or(STALL),
        ttl_after_finished: duration("ttlAfterFinished", raw.ttl_after_finished.as_ref()),
    }
}

pub(super) fn secrets(spec: &FineTuneWorkspaceSpec, faults: &mut Faults) -> Secrets {
    let mut name = |field: &str, text: Option<&String>| -> Option<String> {
        faults.name(field, parse_object_name(text?))
    };
    Secrets {
        pull_model: name("spec.baseModel.pullSecret", spec.base_model.pull_secret.as_ref()),
        pull_data: name("spec.data.pullSecret", spec.data.pull_secret.as_ref()),
        push: name(
            "spec.output.pushSecret",
            spec.output.as_ref().and_then(|output| output.push_secret.as_ref()),
        ),
        hub: name(
            "spec.baseModel.huggingFace.tokenSecret",
            spec.base_model.hugging_face.as_ref().and_then(|hub| hub.token_secret.as_ref()),
        ),
    }
}
