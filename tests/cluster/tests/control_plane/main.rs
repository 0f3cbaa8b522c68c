//! The operator against a real API server, Job controller and garbage collector. Pods are real objects;
//! the tests say how they stand, as a kubelet would.

#![expect(clippy::unwrap_used, reason = "tests")]

mod definition;
mod failures;
mod gate;
mod hands;
mod life;
mod limits;
mod operations;
mod restarts;
mod secrets;
mod servers;
mod support;
