//! Serves a base model and many adapters at once.
//!
//! Read [`scheduler`] first: which tokens go through the model next.

pub mod scheduler;
