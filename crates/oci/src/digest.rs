//! SHA-256 digests as OCI writes them: `sha256:` and 64 lower-case hexadecimal digits.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256:";

/// The digest of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    written(Sha256::digest(bytes).as_slice())
}

/// The hexadecimal part of a digest, or nothing if it is not a SHA-256 digest.
///
/// What this returns is safe as a file name.
pub(crate) fn hex_part(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix(PREFIX)?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(lower_hex)).then_some(hex)
}

fn written(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(PREFIX.len() + 64);
    text.push_str(PREFIX);
    for byte in hash {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A digest that grows with what it is fed.
#[derive(Clone, Default)]
pub(crate) struct Hasher {
    hash: Sha256,
    /// Bytes fed so far.
    pub(crate) size: u64,
}

impl Hasher {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(crate) fn digest(self) -> String {
        written(self.hash.finalize().as_slice())
    }
}

/// Hashes what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// The digest of what was read so far.
    pub(crate) fn digest(self) -> String {
        self.hasher.digest()
    }

    /// Reads what is left and returns the digest and size of all of it.
    pub(crate) fn finish(mut self) -> io::Result<(String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        let size = self.hasher.size;
        Ok((self.hasher.digest(), size))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.feed(&buffer[..count]);
        Ok(count)
    }
}
