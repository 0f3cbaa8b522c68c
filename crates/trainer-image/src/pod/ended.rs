//! Why a pod ends without having done its work.

use api::Fault;
use api::termination::Termination;
use train::ExitClass;

use super::progress::Progress;

/// The exit class and the message.
#[derive(Debug)]
pub struct Ended {
    pub class: ExitClass,
    pub message: Termination,
}

impl Ended {
    pub(super) fn new(
        class: ExitClass,
        error: &dyn std::error::Error,
        hint: Option<String>,
    ) -> Self {
        let message =
            Termination { message: oci::with_causes(error), hint, ..Termination::default() };
        Self { class, message }
    }

    pub(super) fn faults(faults: Vec<Fault>) -> Self {
        let message = format!("there are {} faults", faults.len());
        let message = Termination { message, faults, ..Termination::default() };
        Self { class: ExitClass::Configuration, message }
    }

    pub(super) fn registry(error: &oci::Error) -> Self {
        Self::new(crate::class(error), error, error.hint())
    }

    /// The same, with how far the run was.
    pub(super) fn after(mut self, progress: &Progress) -> Self {
        let status = progress.status();
        self.message.progress = status.progress;
        self.message.resumed_from = status.resumed_from;
        self.message.checkpoint = status.checkpoint;
        self
    }
}
