//! Where a run's events go: to the caller, and to `events.jsonl` once that is open.

use std::path::Path;

use crate::error::RunError;
use crate::event::{Event, EventLog};
use crate::files::FileError;

/// Sends each event on, and remembers what the run is doing, for the text of a failure.
pub(crate) struct Events<'a> {
    log: Option<EventLog>,
    on_event: &'a mut dyn FnMut(&Event),
    doing: &'static str,
}

impl<'a> Events<'a> {
    pub(crate) fn new(on_event: &'a mut dyn FnMut(&Event)) -> Self {
        Self { log: None, on_event, doing: "starting" }
    }

    /// Opens the file, cut back to its first `keep` bytes.
    pub(crate) fn open(&mut self, path: &Path, keep: u64) -> Result<(), FileError> {
        self.log = Some(EventLog::open(path, keep)?);
        Ok(())
    }

    pub(crate) fn emit(&mut self, event: &Event) -> Result<(), FileError> {
        if let Some(log) = &mut self.log {
            log.append(event)?;
        }
        self.show(event);
        Ok(())
    }

    /// Sends an event to the caller alone.
    pub(crate) fn show(&mut self, event: &Event) {
        (self.on_event)(event);
    }

    /// Waits until the file is on the disk, and says how long it is.
    pub(crate) fn sync(&mut self) -> Result<u64, FileError> {
        self.log.as_mut().map_or(Ok(0), EventLog::sync)
    }

    /// Completes "while …" in the text of a failure.
    pub(crate) fn doing(&mut self, doing: &'static str) {
        self.doing = doing;
    }

    pub(crate) fn was_doing(&self) -> &'static str {
        self.doing
    }

    /// Tells of the end of a run that has no adapter.
    pub(crate) fn failed(&mut self, error: &RunError) {
        let event = match error {
            RunError::Stopped { step, steps } => Event::Stopped { step: *step, steps: *steps },
            other => Event::Failed {
                class: other.class(),
                message: other.to_string(),
                hint: other.hint(),
            },
        };
        // The disk may be what failed; the caller is told in any case.
        if self.emit(&event).is_err() {
            self.show(&event);
        }
    }
}
