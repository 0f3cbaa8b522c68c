//! How far the reading is, in bytes of the files as they lie on the disk.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files::DataFile;

/// Told how many bytes have been read, and of how many.
pub type Tell<'a> = dyn FnMut(u64, u64) + 'a;

/// Bytes that were read so far; a clone counts the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Count(Arc<AtomicU64>);

impl Count {
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Counts what one thread reads, and tells it from another.
pub(super) struct Meter<'a> {
    pub(super) count: Count,
    pub(super) teller: Teller<'a>,
}

/// Tells each hundredth once.
pub(super) struct Teller<'a> {
    total: u64,
    told: u64,
    tell: &'a mut Tell<'a>,
}

impl<'a> Meter<'a> {
    pub(super) fn new<'f>(
        files: impl Iterator<Item = &'f DataFile>,
        tell: &'a mut Tell<'a>,
    ) -> Self {
        // A file that cannot be looked at is reported when it is read.
        let sizes = files.filter_map(|file| Some(std::fs::metadata(&file.path).ok()?.len()));
        let total = sizes.sum::<u64>().max(1);
        tell(0, total);
        Self { count: Count::default(), teller: Teller { total, told: 0, tell } }
    }

    /// Tells that all is read, whatever could not be.
    pub(super) fn end(self) {
        let Teller { total, tell, .. } = self.teller;
        tell(total, total);
    }
}

impl Teller<'_> {
    pub(super) fn at(&mut self, count: &Count) {
        let read = count.0.load(Ordering::Relaxed).min(self.total);
        let hundredth = read.saturating_mul(100) / self.total;
        if hundredth > self.told && hundredth < 100 {
            self.told = hundredth;
            (self.tell)(read, self.total);
        }
    }
}

/// A file that counts what is read of it.
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) count: Count,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.add(count as u64);
        Ok(count)
    }
}
