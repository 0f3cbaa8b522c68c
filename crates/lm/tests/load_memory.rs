//! Loading a model takes little more memory than the model.
//!
//! By itself in its process, since the peak is that of the process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use lm::files::ModelFiles;
use lm::weights::Weights;
use tch::{Device, Kind, Tensor};

/// A field of `/proc/self/status` in bytes.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_peak_is_at_most_a_fifth_above_the_weights() {
    let files = ModelFiles::open(&testkit::smollm2().unwrap()).unwrap();
    let weights = Weights::open(&files).unwrap();
    for (kind, width) in [(Kind::BFloat16, 2), (Kind::Float, 4)] {
        let before = status("VmRSS");
        // Forgets the peak so far.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let loaded: Vec<Tensor> =
            weights.names().map(|name| weights.tensor(name, kind, Device::Cpu).unwrap()).collect();
        let bytes: u64 = loaded.iter().map(|tensor| tensor.numel() as u64 * width).sum();
        let peak = status("VmHWM") - before;
        assert!(peak <= bytes * 6 / 5, "{kind:?}: {peak} bytes for {bytes} bytes of weights");
    }
}
