//! Our policy, by the functions that the operator uses: preflight on a CPU, then the queue, then a node, which
//! goes with the end of the run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use api::workspace::Phase;

use super::Sums;
use super::assumptions as assume;
use super::first::most;
use super::trace::{Arrival, Fate};
use super::world::World;

/// What happens to a workspace next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    NodeEnds,
    Arrives,
    PreflightEnds,
    NodeIsReady,
    Starts,
    Ends,
}

/// What is known of a workspace beside its objects.
#[derive(Debug, Default)]
struct Life {
    world: Option<World>,
    waits_since: u64,
    queued: u64,
    started: u64,
    node_since: u64,
    has_quota: bool,
    node_goes: bool,
}

struct Cluster<'a> {
    trace: &'a [Arrival],
    lives: Vec<Life>,
    events: BinaryHeap<Reverse<(u64, Happens, usize)>>,
    queue: VecDeque<usize>,
    quota: u32,
    held: Vec<(u64, bool)>,
    sums: Sums,
}

pub(crate) fn simulate(trace: &[Arrival]) -> Sums {
    let events = trace.iter().enumerate();
    let events = events.map(|(index, one)| Reverse((one.at, Happens::Arrives, index))).collect();
    let mut cluster = Cluster {
        trace,
        lives: trace.iter().map(|_| Life::default()).collect(),
        events,
        queue: VecDeque::new(),
        quota: assume::QUOTA,
        held: Vec::new(),
        sums: Sums::default(),
    };
    while let Some(Reverse((now, what, index))) = cluster.events.pop() {
        cluster.happens(now, what, index);
        cluster.goes_on(now, index);
        cluster.admits(now);
    }
    cluster.sums.most = most(cluster.held);
    cluster.sums
}

impl Cluster<'_> {
    fn happens(&mut self, now: u64, what: Happens, index: usize) {
        let arrival = &self.trace[index];
        let life = &mut self.lives[index];
        let world = life.world.get_or_insert_with(|| World::new(index));
        match what {
            Happens::Arrives => self.later(now + assume::PREFLIGHT, Happens::PreflightEnds, index),
            Happens::PreflightEnds => {
                world.preflight_ends(now, arrival, arrival.fate == Fate::Faulty);
                life.waits_since = now;
            }
            Happens::NodeIsReady => {
                world.node_is_ready(now);
                self.later(now + arrival.pulling, Happens::Starts, index);
            }
            Happens::Starts => {
                world.container_starts(now);
                life.started = now;
                self.sums.waits.push(now - arrival.at);
                self.sums.queued.push(life.queued);
                let idle = if arrival.fate == Fate::Hangs { assume::STALL } else { 0 };
                self.later(now + arrival.works() + idle, Happens::Ends, index);
            }
            Happens::Ends => {
                self.sums.used += arrival.works();
                match arrival.fate {
                    Fate::Succeeds => world.training_ends(now, 0),
                    Fate::Faulty | Fate::Fails => world.training_ends(now, 10),
                    Fate::Hangs => world.hangs(now, assume::STALL + 1),
                    Fate::Cancelled => world.suspend(),
                }
            }
            Happens::NodeEnds => {
                world.node_ends();
                self.held.extend([(life.node_since, true), (now, false)]);
            }
        }
    }

    /// The operator, and what the cluster makes of its objects.
    fn goes_on(&mut self, now: u64, index: usize) {
        let arrival = &self.trace[index];
        let life = &mut self.lives[index];
        let Some(world) = &mut life.world else { return };
        world.operate(now);
        if world.is_held() && !life.has_quota && !self.queue.contains(&index) {
            self.queue.push_back(index);
        }
        if world.has_pool() && !world.has_node() {
            world.node_begins(now);
            life.node_since = now;
            self.later(now + arrival.provisioning, Happens::NodeIsReady, index);
        }
        let life = &mut self.lives[index];
        let Some(world) = &mut life.world else { return };
        let is_over = matches!(
            world.phase(),
            Some(Phase::Succeeded | Phase::Failed | Phase::Suspended | Phase::Rejected)
        );
        if is_over && life.has_quota {
            life.has_quota = false;
            self.quota += 1;
        }
        if !world.has_pool() && world.has_node() && !life.node_goes {
            life.node_goes = true;
            self.later(now + assume::GOING, Happens::NodeEnds, index);
        } else if is_over && !world.has_node() {
            self.account(index);
        }
    }

    /// The status's own sums, once nothing more will be added to them.
    fn account(&mut self, index: usize) {
        let Some(world) = self.lives[index].world.take() else { return };
        let gpu = world.gpu_seconds();
        self.sums.asked += gpu.asked;
        self.sums.held += gpu.held;
        let price = assume::price(world.product().unwrap_or_default());
        self.sums.cost += gpu.held * price / 3600;
    }

    /// The queue lets go whom there is quota for, the first one first.
    fn admits(&mut self, now: u64) {
        while self.quota > 0 {
            let Some(index) = self.queue.pop_front() else { return };
            self.quota -= 1;
            let life = &mut self.lives[index];
            life.has_quota = true;
            life.queued = now - life.waits_since;
            if let Some(world) = &mut life.world {
                world.admit(now);
            }
            self.goes_on(now, index);
        }
    }

    fn later(&mut self, at: u64, what: Happens, index: usize) {
        self.events.push(Reverse((at, what, index)));
    }
}
