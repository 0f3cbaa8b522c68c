//! The allocator of every program that links this crate, for Rust and for LibTorch alike: it takes the
//! place of the C library's `malloc`.
//!
//! Tensors of a run over many lengths have ever new sizes, and glibc's heap then ends up in pieces: 1.9 GB
//! where jemalloc took 1.2 GB, in 14 steps of SmolLM2 in bf16. How jemalloc is set up is for the program
//! to say, before it starts: `train::runtime::prepare`.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
