//! What has to be set before LibTorch is loaded: how its threads wait and how memory is given back.

use std::cell::Cell;
use std::ffi::OsString;
use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Marks a process that was started anew by [`prepare`], so that it is not started a third time.
const PREPARED: &str = "ANNEAL_PREPARED";

/// Starts this program again, in the same process, with the environment that LibTorch's libraries
/// read while they are loaded. A `main` calls it first. What the user has set is left alone.
///
/// - `OMP_WAIT_POLICY=PASSIVE`: by default the threads of OpenMP spin while they wait, and a busy
///   machine then slows training down by more than ten times.
/// - `OMP_NUM_THREADS`: what the cgroup's quota and the affinity allow; OpenMP looks only at the latter.
/// - `MALLOC_CONF`: memory freed by one step is kept for the next, and given back only after some
///   seconds without use; one arena for all threads, as tensors are made by one.
pub fn prepare() {
    quiet_caught_panics();
    if std::env::var_os(PREPARED).is_some() {
        return;
    }
    let missing: Vec<(&str, OsString)> =
        settings().into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    let Ok(program) = std::env::current_exe() else { return };
    if missing.is_empty() {
        return;
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Comes back only where the program cannot be started: then training is slower, and no worse.
    let error = command.args(arguments).envs(missing).env(PREPARED, "1").exec();
    tracing::warn!(%error, "cannot set the environment of LibTorch's libraries");
}

fn settings() -> [(&'static str, OsString); 3] {
    let malloc = "dirty_decay_ms:5000,muzzy_decay_ms:0,oversize_threshold:0,narenas:1";
    [
        ("OMP_WAIT_POLICY", "PASSIVE".into()),
        ("OMP_NUM_THREADS", available_threads().to_string().into()),
        ("MALLOC_CONF", malloc.into()),
    ]
}

/// CPUs that this process may keep busy, by cgroup quota and affinity.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Largest resident set of this process so far in bytes; 0 where the system does not tell.
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kibibytes| kibibytes * 1024)
}

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`; a panic, such as LibTorch's when memory runs out, comes back as an error and does
/// not print a stack trace.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    CAUGHT.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    CAUGHT.set(false);
    result
}

fn quiet_caught_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if CAUGHT.get() {
            tracing::debug!("{info}");
        } else {
            default(info);
        }
    }));
}
