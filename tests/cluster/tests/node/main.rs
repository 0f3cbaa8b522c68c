//! A whole Kubernetes with one real node: our images, installed by Helm, real pods, real registries. One
//! node serves all tests of this program; each has a namespace of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

mod chart;
mod ends;
mod gpu;
mod images;
mod limits;
mod memory;
mod registries;
mod secrets;
mod serving;
mod sources;
mod story;
mod vllm;
