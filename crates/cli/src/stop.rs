//! Ctrl-C: the first asks the run to write a checkpoint and end, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use train::ExitClass;

use crate::failure::Failure;

/// What a shell reports of a program that SIGINT ended; part of the contract, see `args.rs`.
const ENDED_AT_ONCE: i32 = 130;

/// From SIGINT or SIGTERM to the run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Set by the first signal; the trainer looks at it.
    pub(crate) asked: Arc<AtomicBool>,
    /// Set after the last step, when there is no checkpoint left to wait for.
    trained: Arc<AtomicBool>,
}

impl Stop {
    /// From now on, a signal has nothing to wait for.
    pub(crate) fn trained(&self) {
        self.trained.store(true, Ordering::SeqCst);
    }

    /// What a signal means now: a text, and whether it ends the program.
    fn on_signal(&self) -> (&'static str, bool) {
        if self.trained.load(Ordering::SeqCst) {
            if self.asked.load(Ordering::SeqCst) {
                // The step ended between two signals: whether it was the last one is told elsewhere.
                return ("ended: the same command goes on from here", true);
            }
            return ("ended: the training is done, and the same command goes on after it", true);
        }
        if self.asked.swap(true, Ordering::SeqCst) {
            return ("ended at once: the same command goes on from the last checkpoint", true);
        }
        ("stopping: the checkpoint is written after this step (again to end at once)", false)
    }
}

/// Listens from now on.
pub(crate) fn on_signal() -> Result<Stop, Failure> {
    let stop = Stop::default();
    let heard = stop.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| {
        Failure::new(ExitClass::Internal, format!("cannot listen for Ctrl-C: {error}"))
    })?;
    std::thread::spawn(move || {
        for _ in &mut signals {
            let (text, ends) = heard.on_signal();
            eprintln!("\n{text}");
            if ends {
                low_level::exit(ENDED_AT_ONCE);
            }
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_waits_for_a_checkpoint_only_while_there_is_one_to_write() {
        let stop = Stop::default();
        assert!(!stop.on_signal().1);
        assert!(stop.on_signal().1);
        stop.trained();
        let (said, ends) = stop.on_signal();
        assert!(ends && !said.contains("done"), "it was stopped: {said}");
        let stop = Stop::default();
        stop.trained();
        assert!(stop.on_signal().1);
    }
}
