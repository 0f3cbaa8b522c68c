//! Ctrl-C: the first asks the run to write a checkpoint and end, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use train::ExitClass;

use crate::failure::Failure;

/// What a shell reports of a program that SIGINT ended.
const ENDED_AT_ONCE: i32 = 130;

/// From now on, SIGINT and SIGTERM set the flag that is returned.
pub(crate) fn on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| {
        Failure::new(ExitClass::Internal, format!("cannot listen for Ctrl-C: {error}"))
    })?;
    std::thread::spawn(move || {
        for _ in &mut signals {
            if flag.swap(true, Ordering::SeqCst) {
                low_level::exit(ENDED_AT_ONCE);
            }
            eprintln!(
                "\nstopping: the checkpoint is written after this step (again to end at once)"
            );
        }
    });
    Ok(stop)
}
