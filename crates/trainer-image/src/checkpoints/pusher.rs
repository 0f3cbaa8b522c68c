//! The thread that sends the newest checkpoint while the training goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::workspace::CheckpointStatus;
use train::snapshot;

use super::{Remote, beside};

/// Longest wait for a last push: what is left of a pod's grace period after the step that ran.
const LAST_PUSH: Duration = Duration::from_secs(75);
/// Longest wait for a push that is no longer needed.
const NOT_NEEDED: Duration = Duration::from_secs(30);

/// What the thread has to tell.
#[derive(Debug)]
pub enum Told {
    Pushed { checkpoint: CheckpointStatus, seconds: f64 },
    Failed { step: u64, error: oci::Error },
}

/// Takes checkpoints, and sends the newest.
#[derive(Clone, Debug)]
pub struct Pusher {
    shared: Arc<Shared>,
    remote: Remote,
    /// Folder of the run.
    dir: PathBuf,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Least time between the beginnings of two pushes.
    every: Duration,
}

#[derive(Debug)]
struct State {
    /// The newest one that is not in the registry: its steps and a folder of its own.
    waiting: Option<(u64, PathBuf)>,
    is_pushing: bool,
    /// What the registry holds.
    held: Option<CheckpointStatus>,
    /// When the last push began, or this process did.
    last: Instant,
    closing: Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// The waiting one is sent without delay, once.
    Push,
    /// Nothing is sent any more.
    Drop,
}

impl Pusher {
    /// Starts the thread. `held` is what the registry holds of this run; `told` is called from the thread.
    pub fn start(
        remote: Remote,
        dir: &Path,
        every: Duration,
        held: Option<CheckpointStatus>,
        told: impl Fn(Told) + Send + 'static,
    ) -> Self {
        let state = State {
            waiting: None,
            is_pushing: false,
            held,
            last: Instant::now(),
            closing: Closing::No,
        };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), every };
        let pusher = Self { shared: Arc::new(shared), remote, dir: dir.to_owned() };
        let worker = pusher.clone();
        std::thread::spawn(move || worker.work(&told));
        pusher
    }

    /// Takes note of a checkpoint that was written. The files are linked, so that the run may remove its
    /// own at any time.
    pub fn saved(&self, step: u64, path: &Path) {
        let folder = beside(&self.dir, &format!("push-{step}"));
        if let Err(error) = snapshot::take(path, &folder) {
            tracing::warn!(%error, step, "this checkpoint is not pushed");
            return;
        }
        let before = self.shared.lock().waiting.replace((step, folder));
        self.shared.changed.notify_all();
        if let Some((_, folder)) = before {
            remove(&folder);
        }
    }

    /// Waits until the newest checkpoint is in the registry, or that has failed.
    pub fn push_last(&self) {
        self.close(Closing::Push, LAST_PUSH);
    }

    /// Ends the thread, and takes out of the registry what it sent: the run has its result.
    pub fn discard(&self) {
        let is_idle = self.close(Closing::Drop, NOT_NEEDED);
        let held = self.shared.lock().held.take().filter(|_| is_idle);
        if let Some(held) = held {
            self.remote.remove(&held.digest);
        }
    }

    /// Whether the thread came to its end in time.
    fn close(&self, how: Closing, longest: Duration) -> bool {
        let mut state = self.shared.lock();
        state.closing = how;
        self.shared.changed.notify_all();
        let is_busy = |state: &mut State| {
            state.is_pushing || (state.closing == Closing::Push && state.waiting.is_some())
        };
        let waited = self.shared.changed.wait_timeout_while(state, longest, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn work(&self, told: &dyn Fn(Told)) {
        while let Some((step, folder)) = self.shared.next() {
            let started = Instant::now();
            let pushed = self.remote.push(step, &folder);
            let seconds = started.elapsed().as_secs_f64();
            let is_pushed = pushed.is_ok();
            let before = pushed.as_ref().ok().and_then(|new| {
                let before = self.shared.lock().held.replace(new.clone());
                before.filter(|before| before.digest != new.digest)
            });
            told(match pushed {
                Ok(checkpoint) => Told::Pushed { checkpoint, seconds },
                Err(error) => Told::Failed { step, error },
            });
            if let Some(before) = before {
                self.remote.remove(&before.digest);
            }
            if let Some(folder) = self.shared.done((step, folder), is_pushed) {
                remove(&folder);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one to send, once it is time; none when there will be none.
    fn next(&self) -> Option<(u64, PathBuf)> {
        let mut state = self.lock();
        loop {
            let due = self.every.saturating_sub(state.last.elapsed());
            match (state.closing, state.waiting.is_some()) {
                (Closing::Drop, _) | (Closing::Push, false) => return None,
                (Closing::Push, true) => break,
                (Closing::No, true) if due.is_zero() => break,
                (Closing::No, true) => {
                    let waited = self.changed.wait_timeout(state, due);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                (Closing::No, false) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        state.is_pushing = true;
        state.last = Instant::now();
        state.waiting.take()
    }

    /// After a push: one that failed waits again, unless a newer one does. Returns the folder that is of
    /// no more use.
    fn done(&self, sent: (u64, PathBuf), is_pushed: bool) -> Option<PathBuf> {
        let mut state = self.lock();
        state.is_pushing = false;
        let again = !is_pushed && state.waiting.is_none() && state.closing == Closing::No;
        self.changed.notify_all();
        if again {
            state.waiting = Some(sent);
            return None;
        }
        Some(sent.1)
    }
}

fn remove(folder: &Path) {
    // It takes up room and does no other harm.
    let _ = std::fs::remove_dir_all(folder);
}
