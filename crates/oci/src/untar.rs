//! What of a foreign image is let onto the disk.
//!
//! Guarantees: only files and folders, only below the target, only what the image holds under
//! the folders asked for; no more bytes and files than allowed, packed or unpacked; no more than a
//! mebibyte of memory for names. Links, devices and sparse files under those folders are refused;
//! elsewhere in the image (it may be a whole operating system) they are passed over.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};
use thiserror::Error;

use crate::digest::HashingReader;

/// Marks a file or folder of an earlier layer as deleted.
const WHITEOUT: &str = ".wh.";
/// Marks all that earlier layers put into a folder as deleted.
const OPAQUE: &str = ".wh..wh..opq";
/// Most bytes of headers and long names before one entry. Real ones take a few hundred.
const MOST_HEADER: u64 = 1 << 20;

/// Why an image's content was not let onto the disk.
#[derive(Debug, Error)]
pub enum UntarError {
    /// An entry points out of the image.
    #[error("the image holds the path `{path}`, which leads out of it")]
    Escape { path: String },
    /// An entry is no file and no folder.
    #[error("the image holds `{path}`, which is a {kind}; only files and folders are taken")]
    Kind { path: String, kind: &'static str },
    /// A name is not text.
    #[error("the image holds a name that is not UTF-8: `{path}`")]
    Name { path: String },
    /// The image is larger than allowed.
    #[error("the image holds more than {limit} {unit}")]
    TooLarge { limit: u64, unit: &'static str },
    /// The archive cannot be read.
    #[error("a layer of the image is not a readable archive: {reason}")]
    Archive { reason: String },
    /// The disk refused.
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// What may be taken from an image; shared by its layers.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    most_bytes: u64,
    most_files: u64,
}

impl Allowance {
    pub(crate) fn new(bytes: u64, files: u64) -> Self {
        Self { bytes, files, most_bytes: bytes, most_files: files }
    }

    fn take_bytes(&mut self, count: u64) -> Result<(), UntarError> {
        let too_large = UntarError::TooLarge { limit: self.most_bytes, unit: "bytes" };
        self.bytes = self.bytes.checked_sub(count).ok_or(too_large)?;
        Ok(())
    }

    fn take_file(&mut self) -> Result<(), UntarError> {
        let too_large = UntarError::TooLarge { limit: self.most_files, unit: "files" };
        self.files = self.files.checked_sub(1).ok_or(too_large)?;
        Ok(())
    }
}

/// Digests of a layer as it lies and as it is unpacked.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) digest: String,
    pub(crate) diff_id: String,
}

/// What of an archive is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// What lies under folders of these names.
    Under(&'a [&'a str]),
    /// All of it, as if it lay under a folder of this name.
    AllAs(&'a str),
}

/// Stores a layer that is one file.
pub(crate) fn copy(
    layer: impl Read,
    name: &str,
    into: &Path,
    allowance: &mut Allowance,
) -> Result<Seen, UntarError> {
    let path = plain_path(name)?;
    if path.file_name().is_none() {
        return Err(UntarError::Name { path: name.to_owned() });
    }
    allowance.take_file()?;
    let place = into.join(path);
    make_folder(place.parent().unwrap_or(into))?;
    let mut reader = HashingReader::new(layer.take(allowance.bytes.saturating_add(1)));
    write_file(&mut reader, &place)?;
    let (digest, size) = reader.finish().map_err(|e| unreadable(&e))?;
    allowance.take_bytes(size)?;
    Ok(Seen { diff_id: digest.clone(), digest })
}

/// Unpacks what is wanted of a layer into `into/FOLDER`.
pub(crate) fn extract(
    layer: impl Read,
    wanted: Wanted<'_>,
    into: &Path,
    allowance: &mut Allowance,
) -> Result<Seen, UntarError> {
    let mut packed = BufReader::with_capacity(1 << 16, HashingReader::new(layer));
    let start = packed.fill_buf().map_err(|e| unreadable(&e))?;
    // By its first bytes, as runtimes do: labels are wrong now and then.
    let diff_id = if start.starts_with(&[0x1f, 0x8b]) {
        entries(MultiGzDecoder::new(&mut packed), wanted, into, allowance)?
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(&mut packed);
        entries(decoder.map_err(|e| unreadable(&e))?, wanted, into, allowance)?
    } else {
        entries(&mut packed, wanted, into, allowance)?
    };
    let (digest, _) = packed.into_inner().finish().map_err(|e| unreadable(&e))?;
    Ok(Seen { digest, diff_id })
}

fn unreadable(error: &io::Error) -> UntarError {
    UntarError::Archive { reason: error.to_string() }
}

fn entries(
    unpacked: impl Read,
    wanted: Wanted<'_>,
    into: &Path,
    allowance: &mut Allowance,
) -> Result<String, UntarError> {
    let headers = Rc::new(Cell::new(None));
    let guarded = Guarded { inner: unpacked, headers: Rc::clone(&headers) };
    let mut archive = Archive::new(HashingReader::new(guarded));
    let mut found = archive.entries().map_err(|e| unreadable(&e))?;
    loop {
        headers.set(Some(MOST_HEADER));
        let Some(entry) = found.next() else { break };
        headers.set(None);
        let mut entry = entry.map_err(|e| unreadable(&e))?;
        allowance.take_bytes(entry.size())?;
        take(&mut entry, wanted, into, allowance)?;
        // What was passed over must not count as header of the next entry.
        io::copy(&mut entry, &mut io::sink()).map_err(|e| unreadable(&e))?;
    }
    headers.set(None);
    // Zeros fill up the archive's end; they are part of the digest.
    let mut rest = archive.into_inner();
    let most = allowance.bytes.saturating_add(MOST_HEADER);
    let filling = io::copy(&mut rest.by_ref().take(most), &mut io::sink());
    allowance.take_bytes(filling.map_err(|e| unreadable(&e))?.saturating_sub(MOST_HEADER))?;
    Ok(rest.digest())
}

/// Puts one entry onto the disk if it is wanted.
fn take(
    entry: &mut Entry<'_, impl Read>,
    wanted: Wanted<'_>,
    into: &Path,
    allowance: &mut Allowance,
) -> Result<(), UntarError> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let mut path = inner_path(entry)?;
    match wanted {
        Wanted::AllAs(root) => path = Path::new(root).join(path),
        Wanted::Under(roots) => {
            let Some(Component::Normal(root)) = path.components().next() else { return Ok(()) };
            let root = root.to_str().unwrap_or_default();
            if !roots.contains(&root.strip_prefix(WHITEOUT).unwrap_or(root)) {
                return Ok(());
            }
        }
    }
    allowance.take_file()?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let place = into.join(&path);
    if let Some(deleted) = name.strip_prefix(WHITEOUT) {
        return match deleted {
            _ if name == OPAQUE => remove(place.parent().unwrap_or(into)),
            "" | "." | ".." => Err(UntarError::Escape { path: path.display().to_string() }),
            deleted => remove(&place.with_file_name(deleted)),
        };
    }
    match kind {
        EntryType::Directory => make_folder(&place),
        EntryType::Regular | EntryType::Continuous => {
            if let Some(parent) = place.parent() {
                make_folder(parent)?;
            }
            if place.is_dir() {
                remove(&place)?;
            }
            write_file(entry, &place)
        }
        other => Err(UntarError::Kind { path: path.display().to_string(), kind: kind_name(other) }),
    }
}

/// The path within the image: relative, and made of plain names only.
fn inner_path(entry: &Entry<'_, impl Read>) -> Result<PathBuf, UntarError> {
    let bytes = entry.path_bytes();
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| UntarError::Name { path: String::from_utf8_lossy(&bytes).into_owned() })?;
    plain_path(text)
}

fn plain_path(text: &str) -> Result<PathBuf, UntarError> {
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UntarError::Escape { path: text.to_owned() });
            }
        }
    }
    Ok(path)
}

fn make_folder(place: &Path) -> Result<(), UntarError> {
    // A file of an earlier layer may be a folder in this one.
    if let Some(file) = place.ancestors().find(|a| a.is_file()) {
        remove(file)?;
    }
    fs::create_dir_all(place).map_err(io_fault("create", place))
}

fn write_file(content: &mut impl Read, place: &Path) -> Result<(), UntarError> {
    let mut out = File::create(place).map_err(io_fault("create", place))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = content.read(&mut buffer).map_err(|e| unreadable(&e))?;
        if count == 0 {
            return Ok(());
        }
        io::Write::write_all(&mut out, &buffer[..count]).map_err(io_fault("write", place))?;
    }
}

fn remove(place: &Path) -> Result<(), UntarError> {
    let removed = if place.is_dir() { fs::remove_dir_all(place) } else { fs::remove_file(place) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_fault("remove", place)(e)),
        _ => Ok(()),
    }
}

fn io_fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UntarError {
    move |source| UntarError::Io { doing, path: path.to_owned(), source }
}

fn kind_name(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "hard link",
        EntryType::Symlink => "symbolic link",
        EntryType::Char | EntryType::Block => "device",
        EntryType::Fifo => "pipe",
        EntryType::GNUSparse => "sparse file",
        _ => "thing of an unknown kind",
    }
}

/// Stops reading when headers between two entries grow beyond all measure.
struct Guarded<R> {
    inner: R,
    /// Bytes of headers that may still come; nothing while an entry's content is read.
    headers: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(left) = self.headers.get() {
            let left = left.checked_sub(count as u64);
            let left = left.ok_or_else(|| io::Error::other("a name is longer than 1 MiB"))?;
            self.headers.set(Some(left));
        }
        Ok(count)
    }
}
