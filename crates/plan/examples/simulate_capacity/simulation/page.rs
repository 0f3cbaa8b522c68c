//! The page: what was assumed, and what came of it.

use std::fmt::Write as _;

use super::assumptions as assume;
use super::trace::Arrival;
use super::{Sums, first, ours, trace};

/// Seconds of an hour.
const HOUR: u64 = 3600;

/// Workspaces of the beginning that are quickly simulated again.
const CHECKED: usize = 500;

/// The page, in Markdown.
pub(crate) fn page() -> String {
    let trace = trace::trace();
    let table = table(&trace);
    format!("{}\n{table}{FOOT}\nThe first {CHECKED} workspaces alone:\n\n{}", head(), check())
}

/// All of the page before its first table.
pub(crate) fn head() -> String {
    let mut text = HEAD.to_owned();
    assumptions(&mut text);
    text
}

/// The page's last table.
pub(crate) fn check() -> String {
    table(&trace::trace()[..CHECKED])
}

fn table(trace: &[Arrival]) -> String {
    let mut text = TABLE.to_owned();
    row(&mut text, "ours", &ours::simulate(trace));
    for (words, after) in assume::DELETED_AFTER {
        let name = format!("nodes first, deleted {words}");
        row(&mut text, &name, &first::simulate(trace, after));
    }
    text
}

const HEAD: &str = "\
# Capacity, simulated

<!-- Written by `cargo xtask simulate capacity --write`; a test holds it against the functions. -->

A trace of workspaces under two policies, in a modelled cloud. Nothing here was measured on a cloud or on a GPU.

- **ours**: preflight on a CPU node, then the queue, then a node, which is given back when the run ends. Decided by
  the functions of `crates/plan` that the operator uses; GPU-seconds are those of `status.capacity`.
- **nodes first**: as KAITO's tuning does it, by its code: the node is asked for when the workspace is made, before
  anything is checked and outside of any queue, and is there until the workspace is deleted. Its users are assumed to
  name the GPU that we choose: it does not choose one.

";

const TABLE: &str = "\
| policy | GPU-hours asked | held | used | held / used | cost | most GPUs at once | wait, median | wait, 95 % | of it for quota, 95 % | held for faulty data |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

const FOOT: &str = "
Asked: from the moment that a GPU is asked for, by a pod or by a workspace, until that is over. Held: from the order
of a node until it is gone. Used: the trainer works. Wait: from the workspace's creation to the start of its trainer,
of runs that train. Cost: held GPU-hours by price, where an hour of the smallest GPU is 1.
";

fn assumptions(text: &mut String) {
    let percent = |share: f64| (share * 100.0).round();
    let minutes = |(least, most): (u64, u64)| format!("{} to {} min", least / 60, most / 60);
    let mut line = |words: String| {
        let _ = writeln!(text, "- {words}");
    };
    line(format!(
        "{} workspaces arrive over {} days, at random and independent of each other; {} GPUs may be held at once",
        assume::WORKSPACES,
        assume::SPAN / 86_400,
        assume::QUOTA,
    ));
    let models = assume::MODELS.map(|(share, model, longest)| {
        let name = model.strip_suffix("-all");
        let what = if name.is_some() { "all weights" } else { "LoRA" };
        format!("{} % {} ({what}, up to {longest} tokens)", percent(share), name.unwrap_or(model))
    });
    line(format!("models: {}", models.join(", ")));
    let (middle, spread) = assume::EXAMPLES;
    line(format!(
        "examples: log-normal about {middle} with a spread of {spread}; epochs as the defaults choose them, and time by \
         the estimate that preflight makes for a GPU, from {} min to {} h",
        assume::TRAINING.0 / 60,
        assume::TRAINING.1 / HOUR,
    ));
    line(format!(
        "{} % have faulty data, {} % end with an error a tenth of the way, {} % hang half of the way, {} % are stopped \
         by their user half of the way",
        percent(assume::FAULTY),
        percent(assume::FAILS),
        percent(assume::HANGS),
        percent(assume::CANCELLED),
    ));
    line(format!(
        "preflight takes {} s, a node {} to be ready, images {} to be pulled, and a node {} s to go",
        assume::PREFLIGHT,
        minutes(assume::PROVISIONING),
        minutes(assume::PULLING),
        assume::GOING,
    ));
    line(format!(
        "without preflight, faulty data shows {} s after the trainer's start; a run that hangs is ended after {} min \
         with ours, and seen by its user then, or later, with nodes first",
        assume::SEES_FAULT,
        assume::STALL / 60,
    ));
    line(
        "users delete a workspace some time after its end: exponential, up to four means"
            .to_owned(),
    );
    let prices = ["NVIDIA L4", "NVIDIA A100 40GB", "NVIDIA A100 80GB"]
        .map(|name| format!("{name} {}", assume::price(name) / 1000));
    line(format!("an hour of a GPU costs, as ratios and of no provider: {}", prices.join(", ")));
}

fn row(text: &mut String, name: &str, sums: &Sums) {
    let hours = |seconds: u64| seconds / HOUR;
    let _ = writeln!(
        text,
        "| {name} | {} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} |",
        hours(sums.asked),
        hours(sums.held),
        hours(sums.used),
        sums.held as f64 / sums.used as f64,
        sums.cost / 1000,
        sums.most,
        time(share(&sums.waits, 0.5)),
        time(share(&sums.waits, 0.95)),
        time(share(&sums.queued, 0.95)),
        hours(sums.held_for_faults),
    );
}

/// The value that a share of all is not above.
fn share(all: &[u64], share: f64) -> u64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

fn time(seconds: u64) -> String {
    match seconds {
        0..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / (24 * HOUR)),
    }
}
