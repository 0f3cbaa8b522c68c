//! Serves a base model and many adapters at once, over an HTTP API like OpenAI's; adapters come from a
//! registry while it runs.
//!
//! Read [`scheduler`] first: which tokens go through the model next. Then [`engine`], the thread that runs
//! the model; [`adapters`], which keeps what is served as it is declared; [`http`]; and [`server`], where
//! all of them meet. [`front`] is a server of the same API whose engine is vLLM. Nothing here knows of
//! Kubernetes or of training.

pub mod adapters;
pub mod catalog;
pub mod engine;
pub mod front;
pub mod guide;
pub mod http;
pub mod metrics;
pub mod scheduler;
pub mod server;
mod text;

pub use server::{ServeError, ServeOptions, Started, run};
