//! A read-only memory map of a weights file, whose pages can be given back one range at a time.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, UncheckedAdvice};

/// Page size assumed for rounding; a multiple of every page size that Linux and macOS use.
const PAGE: usize = 64 * 1024;

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let map = map(&file)?;
        // Only a hint: reading works without it.
        let _ = map.advise(Advice::Sequential);
        Ok(Self { path: path.to_owned(), map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives the pages under `range` back to the system. They are read from the file again when touched,
    /// so this bounds memory and never changes what is read.
    #[expect(
        unsafe_code,
        reason = "the map is read-only and backed by a file: dropped pages are read again"
    )]
    pub(crate) fn drop_pages(&self, range: Range<usize>) {
        let start = range.start / PAGE * PAGE;
        let end = range.end.div_ceil(PAGE).saturating_mul(PAGE).min(self.map.len());
        if start < end {
            // SAFETY: MADV_DONTNEED on a read-only file mapping does not change its contents.
            let _ = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }
}

#[expect(
    unsafe_code,
    reason = "weights are memory-mapped; a model file is not written while it is read"
)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only. Were another process to shorten the file meanwhile, reading would
    // end the process with a bus error, as in every program that maps its weights.
    unsafe { Mmap::map(file) }
}
