//! Examples that lie in a file: written as they are read from the data, and read back by their place, so
//! that memory does not grow with their tokens. What stays in memory is 16 bytes for each example.
//!
//! The file holds the examples one after another (`codec`), then the table of their places, the facts, and
//! at its end where those two begin and a checksum of all of it. It is read and not mapped: then its pages
//! are no part of this process's memory, and a file that is cut short meanwhile is an error and no crash.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::facts::DataFacts;
use tempfile::{NamedTempFile, TempPath};

use super::codec;
use super::example::Example;
use super::split::Split;
use crate::files::FileError;

const MAGIC: &[u8; 8] = b"ANTOKENS";
/// Two places, the checksum and the magic bytes.
const FOOTER: u64 = 8 + 8 + 4 + 8;
/// Bytes that are written or read at once.
const BUFFER: usize = 1 << 20;

/// Examples in the order of their files, read one at a time.
#[derive(Clone, Debug)]
pub struct Examples {
    source: Arc<Source>,
    entries: Arc<[Entry]>,
}

/// Where an example lies, and how many tokens it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: u64,
    bytes: u32,
    tokens: u32,
}

#[derive(Debug)]
enum Source {
    File { file: File, path: PathBuf },
    Memory(Vec<u8>),
}

/// The examples of all splits, with what is known of them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) train: Examples,
    pub(super) validation: Examples,
    pub(super) test: Examples,
    pub(super) facts: DataFacts,
}

impl Examples {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tokens of each example.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|entry| entry.tokens as usize)
    }

    /// The example at `index`, which must be below [`Self::len`].
    pub fn get(&self, index: usize) -> Result<Example, FileError> {
        self.source.example(self.entries[index])
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Example, FileError>> {
        self.entries.iter().map(|entry| self.source.example(*entry))
    }
}

impl From<&[Example]> for Examples {
    fn from(examples: &[Example]) -> Self {
        let mut writer = Writer::in_memory();
        for example in examples {
            writer.push(Split::Train, example);
        }
        let (stored, _) =
            writer.finish(DataFacts::default()).expect("memory takes what it is given");
        stored.train
    }
}

impl Source {
    fn example(&self, entry: Entry) -> Result<Example, FileError> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the tokens are damaged");
        let decode = |bytes: &[u8]| codec::read(bytes).ok_or_else(damaged);
        match self {
            Self::Memory(bytes) => {
                let start = entry.at as usize;
                bytes.get(start..start + entry.bytes as usize).ok_or_else(damaged).and_then(decode)
            }
            Self::File { file, .. } => {
                let mut bytes = vec![0; entry.bytes as usize];
                file.read_exact_at(&mut bytes, entry.at).and_then(|()| decode(&bytes))
            }
        }
        .map_err(FileError::of("read", self.path()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } => path,
            Self::Memory(_) => Path::new("the memory"),
        }
    }
}

/// Takes examples as they come. A failure is kept until the end.
pub(super) struct Writer {
    sink: Sink,
    /// What waits to be written.
    buffer: Vec<u8>,
    written: u64,
    sum: crc32fast::Hasher,
    entries: [Vec<Entry>; 3],
    failed: io::Result<()>,
}

enum Sink {
    File(NamedTempFile),
    Memory(Vec<u8>),
}

impl Writer {
    /// Writes a new file in `folder`, which is removed unless it is kept.
    pub(super) fn in_folder(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self::to(Sink::File(NamedTempFile::new_in(folder)?)))
    }

    pub(super) fn in_memory() -> Self {
        Self::to(Sink::Memory(Vec::new()))
    }

    fn to(sink: Sink) -> Self {
        let entries = [const { Vec::new() }; 3];
        let sum = crc32fast::Hasher::new();
        Self { sink, buffer: Vec::new(), written: 0, sum, entries, failed: Ok(()) }
    }

    pub(super) fn push(&mut self, split: Split, example: &Example) {
        let (at, start) = (self.at(), self.buffer.len());
        codec::write(example, &mut self.buffer);
        let bytes = (self.buffer.len() - start) as u32;
        let entry = Entry { at, bytes, tokens: example.ids.len() as u32 };
        self.entries[split as usize].push(entry);
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn flush(&mut self) {
        self.sum.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        match &mut self.sink {
            Sink::Memory(memory) => memory.extend(&self.buffer),
            Sink::File(file) if self.failed.is_ok() => self.failed = file.write_all(&self.buffer),
            Sink::File(_) => {}
        }
        self.buffer.clear();
    }

    /// The examples, and the name of their file while it is a temporary one.
    pub(super) fn finish(mut self, facts: DataFacts) -> io::Result<(Stored, Option<TempPath>)> {
        let table = self.at();
        for entries in &self.entries {
            self.buffer.extend((entries.len() as u64).to_le_bytes());
            self.buffer.extend(entries.iter().flat_map(|entry| entry.to_bytes()));
        }
        let facts_at = self.at();
        self.buffer.extend(serde_json::to_vec(&facts)?);
        self.buffer.extend(table.to_le_bytes());
        self.buffer.extend(facts_at.to_le_bytes());
        self.flush();
        self.buffer.extend(self.sum.clone().finalize().to_le_bytes());
        self.buffer.extend(MAGIC);
        self.flush();
        self.failed?;
        let (source, path) = match self.sink {
            Sink::Memory(bytes) => (Source::Memory(bytes), None),
            Sink::File(file) => {
                let (file, path) = file.into_parts();
                (Source::File { file, path: path.with_file_name("") }, Some(path))
            }
        };
        Ok((Stored::new(source, self.entries, facts), path))
    }
}

impl Entry {
    fn to_bytes(self) -> [u8; 16] {
        let all =
            u128::from(self.at) | u128::from(self.bytes) << 64 | u128::from(self.tokens) << 96;
        all.to_le_bytes()
    }

    fn of_bytes(bytes: [u8; 16]) -> Self {
        let all = u128::from_le_bytes(bytes);
        Self { at: all as u64, bytes: (all >> 64) as u32, tokens: (all >> 96) as u32 }
    }
}

impl Stored {
    fn new(source: Source, entries: [Vec<Entry>; 3], facts: DataFacts) -> Self {
        let source = Arc::new(source);
        let [train, validation, test] = entries
            .map(|entries| Examples { source: Arc::clone(&source), entries: entries.into() });
        Self { train, validation, test, facts }
    }

    /// Opens a file that was written before, if every byte of it is as it was.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let end = file.metadata()?.len();
        let body = end.checked_sub(FOOTER).ok_or_else(damaged)?;
        let mut footer = [0; FOOTER as usize];
        file.read_exact_at(&mut footer, body)?;
        let (places, rest) = footer.split_at(16);
        let (sum, magic) = rest.split_at(4);
        if magic != MAGIC || sum != checksum(&file, body + 16)?.to_le_bytes() {
            return Err(damaged());
        }
        let place =
            |at: usize| places[at..at + 8].iter().rev().fold(0, |all, b| all << 8 | u64::from(*b));
        let (table, facts) = (place(0), place(8));
        let mut bytes = vec![0; body.checked_sub(table).ok_or_else(damaged)? as usize];
        file.read_exact_at(&mut bytes, table)?;
        let (table, facts) = facts
            .checked_sub(table)
            .and_then(|at| bytes.split_at_checked(at as usize))
            .ok_or_else(damaged)?;
        let entries = entries(table).ok_or_else(damaged)?;
        let facts = serde_json::from_slice(facts)?;
        Ok(Self::new(Source::File { file, path: path.to_owned() }, entries, facts))
    }
}

/// The three lists of `table`.
fn entries(mut table: &[u8]) -> Option<[Vec<Entry>; 3]> {
    let mut lists = [const { Vec::new() }; 3];
    for list in &mut lists {
        let (count, rest) = table.split_first_chunk::<8>()?;
        let (entries, rest) = rest
            .split_at_checked(usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(16)?)?;
        *list = entries.as_chunks::<16>().0.iter().map(|bytes| Entry::of_bytes(*bytes)).collect();
        table = rest;
    }
    table.is_empty().then_some(lists)
}

/// CRC-32 of the first `count` bytes.
fn checksum(file: &File, count: u64) -> io::Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < count {
        let part = &mut buffer[..BUFFER.min((count - at) as usize)];
        file.read_exact_at(part, at)?;
        sum.update(part);
        at += part.len() as u64;
    }
    Ok(sum.finalize())
}
