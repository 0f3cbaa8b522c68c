//! One file for each way of teaching.

pub mod sft;
