//! Writing files so that a crash, a full disk or a read-only folder never leaves half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file operation that failed: what was being done, to which path, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {source}", path.display())]
pub struct FileError {
    /// Completes "cannot …": `write`, `create folder`.
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names what was being done to `path`.
    pub fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { doing, path, source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space on that disk and run the same command again: it resumes from the \
                 last checkpoint"
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                "make the folder writable, or name another one as the output directory"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "a file is in the way: move it, or name another output directory"
            }
            io::ErrorKind::NotFound => "check the path",
            _ => "run the same command again: it resumes from the last checkpoint",
        }
    }
}

/// Creates a folder and those above it.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::of("create folder", path))
}

/// Writes a new file and waits until it is on the disk.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(FileError::of("write", path))
}

/// Replaces a file in one step: readers see the old bytes or the new ones.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path).map_err(FileError::of("write", path)));
    if written.is_err() {
        // The disk may be full: what cannot be used should not take up room. The first error counts.
        let _ = fs::remove_file(&partial);
    }
    written?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames inside a folder durable.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::of("write", path))
}

/// Waits until every file below `folder` is on the disk.
pub fn sync_tree(folder: &Path) -> Result<(), FileError> {
    for path in files_below(folder)? {
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(FileError::of("write", &path))?;
    }
    sync_folder(folder)
}

/// Every file below `folder`, sorted by path.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let reading = FileError::of("read folder", &folder);
        let entries: Vec<_> = fs::read_dir(&folder).and_then(Iterator::collect).map_err(reading)?;
        for entry in entries {
            let path = entry.path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 of a file as lower-case hexadecimal digits, and its size in bytes.
pub fn sha256_of(path: &Path) -> Result<(String, u64), FileError> {
    let digest = || {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        loop {
            let read = io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                return Ok((hex(&hasher.finalize()), size));
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
    };
    digest().map_err(FileError::of("read", path))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
