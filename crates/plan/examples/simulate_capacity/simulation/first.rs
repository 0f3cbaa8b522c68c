//! Nodes first: a node is asked for when the workspace is made, and is there until it is deleted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Sums;
use super::assumptions as assume;
use super::trace::{Arrival, Fate};

/// Every run on the product that we take for it, in the order of arrival; workspaces are deleted so long
/// after their end, in seconds on average.
pub(crate) fn simulate(trace: &[Arrival], deleted_after: f64) -> Sums {
    let mut sums = Sums::default();
    // When a GPU is free again, for each that there may be.
    let mut free: BinaryHeap<Reverse<u64>> = (0..assume::QUOTA).map(|_| Reverse(0)).collect();
    let mut held: Vec<(u64, bool)> = Vec::new();
    for arrival in trace {
        let Some(Reverse(at)) = free.pop() else { break };
        let asked = at.max(arrival.at);
        let started = asked + arrival.provisioning + arrival.pulling;
        let ended = started + arrival.works();
        let stays = (deleted_after * arrival.deleted_after) as u64;
        let deleted = match arrival.fate {
            // Deleting is how it is stopped.
            Fate::Cancelled => ended,
            // Its user sees that nothing moves when we would, or later.
            Fate::Hangs => ended + assume::STALL + stays,
            Fate::Succeeds | Fate::Faulty | Fate::Fails => ended + stays,
        };
        let gone = deleted + assume::GOING;
        free.push(Reverse(gone));
        held.extend([(asked, true), (gone, false)]);
        let holds = gone - asked;
        sums.asked += deleted - arrival.at;
        sums.held += holds;
        sums.used += arrival.works();
        sums.cost += holds * assume::price(&arrival.product) / 3600;
        if arrival.fate == Fate::Faulty {
            sums.held_for_faults += holds;
        } else {
            sums.waits.push(started - arrival.at);
            sums.queued.push(asked - arrival.at);
        }
    }
    sums.most = most(held);
    sums
}

/// Most GPUs at the same time.
pub(crate) fn most(mut held: Vec<(u64, bool)>) -> u32 {
    held.sort_unstable();
    let (mut now, mut most) = (0_u32, 0);
    for (_, begins) in held {
        now = if begins { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}
