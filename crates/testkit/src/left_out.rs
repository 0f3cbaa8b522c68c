//! Tests that a machine cannot run are left out by name and reason, and never in silence.

use std::fs::OpenOptions;
use std::io::Write as _;

/// File that `cargo xtask test` collects names and reasons in.
pub const FILE: &str = "ANNEAL_LEFT_OUT";

/// Tells that `test` cannot run here. The caller then returns. Where `CI=true` this fails, because
/// that machine is meant to have everything.
pub fn left_out(test: &str, reason: &str) {
    assert!(
        !std::env::var("CI").is_ok_and(|ci| ci == "true"),
        "`{test}` cannot run here and must: {reason}"
    );
    eprintln!("left out: {test}: {reason}");
    if let Some(path) = std::env::var_os(FILE)
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = file.write_all(format!("{test}\t{reason}\n").as_bytes());
    }
}
