//! The process itself, as Prometheus' own clients tell of it. Read from `/proc`; elsewhere there is none.

use std::fs;

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Clock ticks a second in `/proc`, which is 100 wherever Linux runs.
const TICKS: f64 = 100.0;

/// Memory, processor time, open files and start.
pub(super) fn families() -> Result<Vec<MetricFamily>, prometheus::Error> {
    let gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        Ok::<_, prometheus::Error>(gauge.collect())
    };
    let mut families = Vec::new();
    if let Some(bytes) = resident() {
        let help = "Resident memory size in bytes.";
        families.extend(gauge("process_resident_memory_bytes", help, bytes)?);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        families.extend(gauge("process_open_fds", help, files.count() as f64)?);
    }
    if let Some((used, start)) = times() {
        let help = "Start time of the process since unix epoch in seconds.";
        families.extend(gauge("process_start_time_seconds", help, start)?);
        let help = "Total user and system CPU time spent in seconds.";
        let counter = Counter::new("process_cpu_seconds_total", help)?;
        counter.inc_by(used);
        families.extend(counter.collect());
    }
    Ok(families)
}

fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// Processor time that was used, and when the process started, in seconds.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name is in brackets, and may hold blanks. What follows it is counted from 3 in proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    let start = boot.trim().parse::<f64>().ok()? + field(22)? / TICKS;
    Some(((field(14)? + field(15)?) / TICKS, start))
}
