//! One file for each command.

pub(crate) mod chat;
pub(crate) mod front;
pub(crate) mod generate;
pub(crate) mod link;
pub(crate) mod plan;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod run;
pub(crate) mod serve;
mod serving;
pub(crate) mod validate;
