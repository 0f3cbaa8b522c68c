//! Metrics that are read off the workspaces at the moment of the question: a run's series are there
//! while it runs, and gone with it.

use api::FineTuneWorkspace;
use api::condition::{READY, Reason};
use api::workspace::Phase;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};

/// Most runs that have series of their own.
const MOST: usize = 1000;

const PHASES: [Phase; 10] = [
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
];

/// All of them.
pub(super) fn families<'a>(
    workspaces: impl Iterator<Item = &'a FineTuneWorkspace> + Clone,
) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let phases =
        IntGaugeVec::new(Opts::new("anneal_workspaces", "Workspaces by phase"), &["phase"])?;
    for phase in PHASES {
        phases.with_label_values(&[format!("{phase:?}")]);
    }
    let reasons = "Workspaces by the reason of their Ready condition";
    let reasons = IntGaugeVec::new(Opts::new("anneal_workspaces_by_reason", reasons), &["reason"])?;
    for reason in Reason::ALL {
        reasons.with_label_values(&[reason.as_str()]);
    }
    for status in workspaces.clone().filter_map(|workspace| workspace.status.as_ref()) {
        if let Some(phase) = status.phase {
            phases.with_label_values(&[format!("{phase:?}")]).inc();
        }
        let ready = status.conditions.iter().find(|one| one.type_ == READY);
        // A word of somebody else's is no label of ours.
        let known =
            Reason::ALL.iter().find(|one| ready.is_some_and(|it| it.reason == one.as_str()));
        if let Some(reason) = known {
            reasons.with_label_values(&[reason.as_str()]).inc();
        }
    }
    let mut families = phases.collect();
    families.extend(reasons.collect());
    families.extend(running(workspaces)?);
    Ok(families)
}

/// What running trainers tell, as the status has it.
fn running<'a>(
    workspaces: impl Iterator<Item = &'a FineTuneWorkspace>,
) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let gauge = |name: &str, help: &str| {
        GaugeVec::new(
            Opts::new(format!("anneal_workspace_{name}"), help),
            &["namespace", "workspace"],
        )
    };
    let step = gauge("step", "Optimizer steps done by a running training")?;
    let steps = gauge("steps", "Optimizer steps of a running training in all")?;
    let loss = gauge("train_loss", "Loss of a running training's last step")?;
    let valid = gauge("valid_loss", "Loss on the validation examples of a running training")?;
    let speed = gauge("tokens_per_second", "Tokens a second of a running training")?;
    let left = gauge("eta_seconds", "Seconds that a running training says are left")?;
    for workspace in workspaces.filter(|workspace| runs(workspace)).take(MOST) {
        let metadata = &workspace.metadata;
        let names = [metadata.namespace.as_deref(), metadata.name.as_deref()]
            .map(Option::unwrap_or_default);
        let Some(progress) = workspace.status.as_ref().and_then(|status| status.progress.as_ref())
        else {
            continue;
        };
        for (gauge, value) in [
            (&step, Some(progress.step as f64)),
            (&steps, Some(progress.total_steps as f64)),
            (&loss, progress.train_loss),
            (&valid, progress.valid_loss),
            (&speed, progress.tokens_per_second),
            (&left, progress.eta_seconds.map(|seconds| seconds as f64)),
        ] {
            if let Some(value) = value {
                gauge.with_label_values(&names).set(value);
            }
        }
    }
    let all = [step, steps, loss, valid, speed, left];
    // A family without a series cannot be written.
    let families = all.iter().flat_map(Collector::collect);
    Ok(families.filter(|family| !family.get_metric().is_empty()).collect())
}

fn runs(workspace: &FineTuneWorkspace) -> bool {
    let phase = workspace.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(Phase::Training | Phase::Evaluating | Phase::Publishing))
}
