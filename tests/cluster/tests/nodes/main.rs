//! GPU nodes: the operator beside real Karpenter, whose machines are node objects alone, the real scheduler
//! and real Kueue, on a real API server. The tests do the kubelet's part.

#![expect(clippy::unwrap_used, reason = "tests")]

mod choices;
mod clouds;
mod ends;
mod queue;
mod restarts;
mod rights;
mod shapes;
mod support;
