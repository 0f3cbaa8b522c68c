//! The simulation: the trace, the two policies, and the page that tells of them.

mod assumptions;
mod first;
mod ours;
pub(crate) mod page;
#[path = "../../../tests/shapes/mod.rs"]
mod shapes;
mod trace;
mod world;

/// What a policy came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    /// Seconds from a workspace's creation to the start of its training, of those that trained.
    pub(crate) waits: Vec<u64>,
    /// Of these, the seconds for which it waited for quota.
    pub(crate) queued: Vec<u64>,
    /// GPU-seconds.
    pub(crate) asked: u64,
    pub(crate) held: u64,
    pub(crate) used: u64,
    /// GPU-seconds held by runs whose data is faulty.
    pub(crate) held_for_faults: u64,
    /// In thousandths of the price of an hour of the smallest GPU.
    pub(crate) cost: u64,
    /// Most GPUs that were held at the same time.
    pub(crate) most: u32,
}
