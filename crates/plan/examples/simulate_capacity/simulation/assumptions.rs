//! All that the simulation assumes. None of it was measured; each is a line of the page.

/// Workspaces, and the seconds over which they arrive.
pub(crate) const WORKSPACES: usize = 10_000;
pub(crate) const SPAN: u64 = 30 * 24 * 3600;
pub(crate) const SEED: u64 = 20_261_130;
/// GPUs that may be held at the same time, whoever holds them.
pub(crate) const QUOTA: u32 = 32;

/// Preflight on a CPU node.
pub(crate) const PREFLIGHT: u64 = 60;
/// From asking for a node to a node that is ready, and from there to a container that runs.
pub(crate) const PROVISIONING: (u64, u64) = (120, 300);
pub(crate) const PULLING: (u64, u64) = (60, 180);
/// From giving a node back to its being gone.
pub(crate) const GOING: u64 = 30;
/// What a trainer takes to see that its data is faulty, where nobody saw it before.
pub(crate) const SEES_FAULT: u64 = 30;
/// How long a trainer may show no sign of work: `limits.stall`.
pub(crate) const STALL: u64 = 1800;
/// Mean times after the end of a run at which its user deletes the workspace.
pub(crate) const DELETED_AFTER: [(&str, f64); 3] =
    [("at once", 0.0), ("after 1 h on average", 3600.0), ("after 4 h on average", 4.0 * 3600.0)];
/// Longest time after the end at which it is deleted, in means.
pub(crate) const MOST_MEANS: f64 = 4.0;

/// Share, model (`-all`: all weights), longest example in tokens.
pub(crate) const MODELS: [(f64, &str, u64); 5] = [
    (0.15, "smollm2-135m", 800),
    (0.20, "qwen-0.6b", 2000),
    (0.25, "llama-3b", 2000),
    (0.35, "llama-8b", 2000),
    (0.05, "llama-3b-all", 2000),
];
/// Training examples: the middle one of a log-normal distribution, and its spread.
pub(crate) const EXAMPLES: (f64, f64) = (8000.0, 0.9);
/// Bounds of a training's length in seconds.
pub(crate) const TRAINING: (u64, u64) = (120, 24 * 3600);

/// How runs end, by share; the rest succeeds.
pub(crate) const FAULTY: f64 = 0.08;
pub(crate) const FAILS: f64 = 0.05;
pub(crate) const HANGS: f64 = 0.02;
pub(crate) const CANCELLED: f64 = 0.03;

/// Price of an hour of one GPU in thousandths of that of the smallest one: round figures of no provider.
pub(crate) fn price(product: &str) -> u64 {
    match product {
        "NVIDIA L4" => 1000,
        "NVIDIA A100 40GB" => 4000,
        "NVIDIA A100 80GB" => 6000,
        _ => 12_000,
    }
}
