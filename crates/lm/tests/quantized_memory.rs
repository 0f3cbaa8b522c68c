//! A model that is quantized while it loads takes little more memory than it has in the end.
//!
//! By itself in its process, since the peak is that of the process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use lm::files::ModelFiles;
use lm::layers::Quantization;
use lm::model::{LoadOptions, Model};
use tch::{Device, Kind};

/// A field of `/proc/self/status` in bytes.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn four_bits_are_at_most_three_tenths_of_bf16_and_no_second_copy_is_made() {
    let files = ModelFiles::open(&testkit::smollm2().unwrap()).unwrap();
    let options =
        |quantization| LoadOptions { kind: Kind::BFloat16, device: Device::Cpu, quantization };
    for (format, most) in [(Quantization::Nf4, 0.30), (Quantization::Int8, 0.51)] {
        let before = status("VmRSS");
        // Forgets the peak so far.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let mut model = Model::load(&files, options(Some(format))).unwrap();
        let peak = status("VmHWM") - before;
        let (bytes, elements) = model.frozen_linears();
        let share = bytes as f64 / (2 * elements) as f64;
        assert!(share <= most, "{format:?}: {share:.3} of bf16");
        // The embeddings stay in bf16; one matrix at a time is there in full, in fp32 a few times.
        let config = model.config();
        let embeddings = 2 * (config.vocab_size * config.hidden_size) as u64;
        let largest = (config.intermediate_size * config.hidden_size) as u64;
        let allowed = (bytes as u64 + embeddings) * 6 / 5 + 16 * largest;
        assert!(peak <= allowed, "{format:?}: {peak} bytes, and {allowed} are allowed");
    }
}
