//! A thread beside the work: it writes down that nothing moves any more, and ends the process on a
//! signal where the work would not, because it hangs or has nothing to save.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::Termination;
use api::termination::{Stage, exit_code};

use super::progress::Progress;
use crate::message;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks until the process ends. `stop` is set by a signal.
pub(super) fn start(progress: &Progress, stop: &Arc<AtomicBool>) {
    let (progress, stop) = (progress.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut told = false;
        loop {
            std::thread::sleep(INTERVAL);
            let stalled = progress.stalled();
            match (stalled, told) {
                (Some(idle), false) => message::write(&hangs(idle, &progress).to_message()),
                (None, true) => message::write(""),
                _ => {}
            }
            told = stalled.is_some();
            if stop.load(Ordering::Relaxed) {
                end(told, &progress);
            }
        }
    });
}

/// Ends the process where nothing is lost by it.
fn end(hangs: bool, progress: &Progress) {
    let code = if hangs {
        exit_code::IO
    } else if progress.status().stage == Stage::Loading {
        let message = "stopped before the first step".to_owned();
        message::write(&Termination { message, ..Termination::default() }.to_message());
        exit_code::STOPPED
    } else {
        return;
    };
    signal_hook::low_level::exit(code);
}

fn hangs(idle: Duration, progress: &Progress) -> Termination {
    let status = progress.status();
    let message = format!(
        "the trainer shows no sign of work for {} s, in stage {:?}",
        idle.as_secs(),
        status.stage
    );
    let hint = "see its log and the node's; a run of large steps needs a higher limits.stall";
    tracing::error!("{message}");
    Termination {
        message,
        hint: Some(hint.to_owned()),
        progress: status.progress,
        resumed_from: status.resumed_from,
        checkpoint: status.checkpoint,
        ..Termination::default()
    }
}
