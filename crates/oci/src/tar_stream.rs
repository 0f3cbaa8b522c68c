//! A tar archive that is a pure function of names and contents, produced as it is read.
//!
//! Nothing is copied to the disk: a layer of a model is hashed, uploaded or written to a layout by
//! reading the model's own files. Entries are sorted and have fixed times, owners and modes, so
//! equal contents give equal bytes on every machine. This does not read archives; see `untar`.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tar::{EntryType, Header};

/// Tar's unit: headers are one block, contents are filled up to whole blocks.
const BLOCK: u64 = 512;

/// One entry of the archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Relative, with `/` between the parts; folders end with `/`.
    pub(crate) path: String,
    /// Permissions, such as [`FILE`].
    pub(crate) mode: u32,
    pub(crate) content: Content,
}

/// Everybody may read; nobody but the owner, root, may write.
pub(crate) const FILE: u32 = 0o644;
/// The same of a folder, and of a program.
pub(crate) const FOLDER: u32 = 0o755;

/// What an entry holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Folder,
    /// A file on the disk, with its size in bytes when it was found.
    File {
        path: PathBuf,
        size: u64,
    },
    /// A file of which there is none on the disk.
    Text(&'static str),
}

/// An archive that can be read any number of times.
#[derive(Clone, Debug)]
pub(crate) struct TarStream {
    parts: Arc<Vec<Part>>,
}

#[derive(Clone, Debug)]
enum Part {
    Bytes(Bytes),
    File { path: PathBuf, size: u64 },
}

impl TarStream {
    /// Lays out the archive; `entries` must be sorted by path.
    pub(crate) fn new(entries: &[Entry]) -> io::Result<Self> {
        let mut parts = Vec::new();
        for entry in entries {
            parts.push(Part::Bytes(header(entry)?));
            let length = match &entry.content {
                Content::Folder => continue,
                Content::File { path, size } => {
                    parts.push(Part::File { path: path.clone(), size: *size });
                    *size
                }
                Content::Text(text) => {
                    parts.push(Part::Bytes(Bytes::from_static(text.as_bytes())));
                    text.len() as u64
                }
            };
            let padding = length.next_multiple_of(BLOCK) - length;
            parts.push(Part::Bytes(Bytes::from(vec![0; padding as usize])));
        }
        // Two blocks of zeros end an archive.
        parts.push(Part::Bytes(Bytes::from(vec![0; 2 * BLOCK as usize])));
        Ok(Self { parts: Arc::new(parts) })
    }

    pub(crate) fn open(&self) -> TarReader {
        TarReader { parts: Arc::clone(&self.parts), next: 0, current: None }
    }
}

/// Whether a path fits into a header: 255 bytes, and 100 for its last part.
pub(crate) fn fits(path: &str) -> bool {
    Header::new_ustar().set_path(path).is_ok()
}

fn header(entry: &Entry) -> io::Result<Bytes> {
    // `ustar` splits long names in two fields and every reader knows it.
    let mut header = Header::new_ustar();
    header.set_path(&entry.path)?;
    let (kind, size) = match entry.content {
        Content::Folder => (EntryType::Directory, 0),
        Content::File { size, .. } => (EntryType::Regular, size),
        Content::Text(text) => (EntryType::Regular, text.len() as u64),
    };
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// Reads the archive from its start.
pub(crate) struct TarReader {
    parts: Arc<Vec<Part>>,
    next: usize,
    current: Option<Current>,
}

enum Current {
    Bytes(Cursor<Bytes>),
    File { file: File, path: PathBuf, left: u64 },
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(current) = &mut self.current {
                let count = current.read(buffer)?;
                if count > 0 {
                    return Ok(count);
                }
            }
            let Some(part) = self.parts.get(self.next) else { return Ok(0) };
            self.current = Some(Current::open(part)?);
            self.next += 1;
        }
    }
}

impl Current {
    fn open(part: &Part) -> io::Result<Self> {
        Ok(match part {
            Part::Bytes(bytes) => Self::Bytes(Cursor::new(bytes.clone())),
            Part::File { path, size } => {
                let file = File::open(path).map_err(|e| named(path, &e))?;
                Self::File { file, path: path.clone(), left: *size }
            }
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(cursor) => cursor.read(buffer),
            Self::File { left: 0, .. } => Ok(0),
            Self::File { file, path, left } => {
                let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let count = file.read(&mut buffer[..most]).map_err(|e| named(path, &e))?;
                if count == 0 {
                    let text = format!("{} became shorter while it was read", path.display());
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                *left -= count as u64;
                Ok(count)
            }
        }
    }
}

fn named(path: &std::path::Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
