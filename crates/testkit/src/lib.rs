//! Starts the real parts that tests need, so that nothing has to be mocked.

pub mod base_model;
pub mod cluster;
pub mod hub;
pub mod left_out;
pub mod python;
pub mod registry;
pub mod tiny_model;

pub use base_model::smollm2;
pub use registry::needs_go;

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
