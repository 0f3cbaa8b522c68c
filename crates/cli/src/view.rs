//! What a person sees: the live bar or plain lines, the plan, and the table at the end.

pub(crate) mod format;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod transfer;
