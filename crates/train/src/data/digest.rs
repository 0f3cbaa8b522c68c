//! The digest of the data: SHA-256 over the contents of all files, one after another.
//!
//! For a single file it is what `sha256sum` prints; for several, `cat FILES | sha256sum`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::files::DataFile;

/// `sha256:…` of `files` in order. A file that cannot be read counts as empty: reading its records
/// fails as well, and that is where it is reported.
pub(super) fn digest<'a>(files: impl Iterator<Item = &'a DataFile>) -> String {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for file in files {
        let Ok(mut opened) = File::open(&file.path) else { continue };
        while let Ok(count @ 1..) = opened.read(&mut buffer) {
            hasher.update(&buffer[..count]);
        }
    }
    let mut text = "sha256:".to_owned();
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
