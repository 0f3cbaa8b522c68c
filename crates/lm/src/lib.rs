//! Models, layers, LoRA, weights, tokenizers, chat templates and generation, on LibTorch.
//!
//! Read `tape.rs` first: how a forward pass is remembered and run backwards. Then `linear.rs`, the
//! layer that adapters attach to, and `models/llama.rs`, which shows how a model is written. Model
//! files know nothing of LoRA, precision, training or serving.

pub mod adapters;
mod allocator;
pub mod attention;
pub mod chat;
pub mod config;
pub mod dropout;
pub mod files;
pub mod generate;
pub mod head;
mod kernels;
pub mod kv_cache;
pub mod layers;
pub mod linear;
pub mod loader;
pub mod lora;
pub mod model;
pub mod models;
pub mod nf4;
mod nf4_kernels;
pub mod packed;
pub mod paged;
pub mod param;
pub mod peft;
pub mod products;
pub mod rope;
pub mod sample;
mod serve_kernels;
pub mod tape;
pub mod tokenizer;
pub mod weights;
