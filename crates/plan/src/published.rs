//! The list of what a workspace has published.

use api::workspace::Published;

use crate::phase::Phase;

/// Most revisions that the status tells of.
const MOST: usize = 10;

/// What was published, with what is now. A revision that was run again is the newest. The newest one that
/// passed its gate stays, however many have failed since: servers go by it.
pub(crate) fn published(mut all: Vec<Published>, revision: &str, phase: &Phase) -> Vec<Published> {
    let Phase::Succeeded { adapter, gate } = phase else { return all };
    let failed = gate.as_ref().filter(|gate| !gate.passed);
    all.retain(|one| one.revision != revision);
    all.push(Published {
        revision: revision.to_owned(),
        image: adapter.image.clone(),
        digest: adapter.digest.clone(),
        gate_failed: failed.map(|gate| gate.message.clone()),
    });
    while all.len() > MOST {
        let kept = all.iter().rposition(|one| one.gate_failed.is_none());
        all.remove(usize::from(kept == Some(0)));
    }
    all
}

#[cfg(test)]
mod tests {
    use api::workspace::{AdapterStatus, GateMetric, GateStatus};

    use super::*;

    fn after(all: Vec<Published>, revision: &str, passed: bool) -> Vec<Published> {
        let message = "too low".to_owned();
        let (metric, base, tuned) = (GateMetric::Loss, None, None);
        let gate = Some(GateStatus { metric, passed, base, tuned, message });
        published(all, revision, &Phase::Succeeded { adapter: AdapterStatus::default(), gate })
    }

    #[test]
    fn the_newest_that_passed_outlives_all_that_failed() {
        let mut all = after(after(Vec::new(), "old", true), "good", true);
        for number in 0..20 {
            all = after(all, &format!("bad{number}"), false);
        }
        assert_eq!(all.len(), MOST);
        let passed: Vec<&str> = all
            .iter()
            .filter(|one| one.gate_failed.is_none())
            .map(|one| one.revision.as_str())
            .collect();
        assert_eq!(passed, ["good"]);
        assert_eq!(all[MOST - 1].revision, "bad19");
        let again = after(all, "good", false);
        assert_eq!(again[MOST - 1].revision, "good", "run again, it is the newest");
    }
}
