//! Memory and processor time of another process, from `/proc`.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// What it has now (`VmRSS`).
    pub resident: u64,
    /// Of this, what is no page of a file (`RssAnon`).
    pub anonymous: u64,
    /// The most it ever had (`VmHWM`).
    pub peak: u64,
}

/// Memory of a process.
pub fn memory(id: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("no such process")?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kilobytes.with_context(|| format!("no {name} in /proc"))?.parse::<u64>()? * 1024)
    };
    Ok(Memory { resident: field("VmRSS")?, anonymous: field("RssAnon")?, peak: field("VmHWM")? })
}

/// Processor time that a process has used, in seconds.
pub fn cpu_seconds(id: u32) -> Result<f64> {
    /// Ticks a second in `/proc`, which is 100 wherever Linux runs.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("no such process")?;
    let after_name = stat.rsplit_once(')').context("no name in /proc")?.1;
    // User and system time are fields 14 and 15 of proc(5); the first after the name is 3.
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Ok(ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS)
}
