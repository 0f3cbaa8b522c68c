//! The folder that an image is brought into, and the hidden one beside it where that happens.
//!
//! `.NAME.pulling` holds fetched blobs and the files as they are unpacked. It is locked while a
//! pull runs, kept when one breaks, and gone when one succeeds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{PullError, Pulled, Root};
use crate::image::Image;

/// A hidden file in each pulled folder that says what it holds.
pub const MARKER: &str = ".anneal-image.json";

/// What [`MARKER`] holds.
#[derive(Serialize, Deserialize)]
struct Marker {
    reference: String,
    digest: String,
    root: String,
    files: u64,
    bytes: u64,
}

/// The folder and its hidden neighbour, for the time of one pull.
pub(super) struct Place {
    folder: PathBuf,
    work: PathBuf,
    _turn: File,
}

pub(super) fn io_fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PullError {
    move |source| PullError::Io { doing, path: path.to_owned(), source }
}

/// Files and bytes below a folder, without the marker.
pub(super) fn count(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let (files, bytes) = count(&entry.path());
            sum = (sum.0 + files, sum.1 + bytes);
        } else if entry.file_name() != MARKER {
            sum = (sum.0 + 1, sum.1 + metadata.len());
        }
    }
    sum
}

impl Place {
    /// Waits for its turn, and repairs what a killed pull left.
    pub(super) fn enter(folder: &Path) -> Result<Self, PullError> {
        let absolute = std::path::absolute(folder).map_err(io_fault("find", folder))?;
        let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parent = absolute.parent().unwrap_or(&absolute).to_owned();
        let work = parent.join(format!(".{name}.pulling"));
        let turn = turn(&work)?;
        let place = Self { folder: absolute, work, _turn: turn };
        let former = place.former();
        if former.exists() && !place.folder.exists() {
            fs::rename(&former, &place.folder).map_err(io_fault("restore", &place.folder))?;
        }
        let occupied = place.folder.read_dir().is_ok_and(|mut d| d.next().is_some());
        if place.folder.is_file() || occupied && place.marker().is_none() {
            place.leave();
            return Err(PullError::Occupied { folder: folder.to_owned() });
        }
        Ok(place)
    }

    fn marker(&self) -> Option<Marker> {
        serde_json::from_slice(&fs::read(self.folder.join(MARKER)).ok()?).ok()
    }

    fn former(&self) -> PathBuf {
        self.work.join("former")
    }

    /// Drops the hidden folder if nothing in it is worth keeping.
    fn leave(&self) {
        let _ = fs::remove_dir(&self.work);
    }

    /// What the folder holds, if it is this image and nothing was added or lost.
    pub(super) fn present(
        &self,
        digest: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Option<Pulled> {
        let marker = self.marker()?;
        if marker.digest != digest || count(&self.folder) != (marker.files, marker.bytes) {
            return None;
        }
        self.leave();
        Some(Pulled {
            folder: self.folder.clone(),
            digest: marker.digest,
            root: if marker.root == Root::Models.name() { Root::Models } else { Root::Data },
            annotations: annotations.clone(),
            files: marker.files,
            bytes: marker.bytes,
            was_there: true,
        })
    }

    /// Where a blob is kept until the pull succeeds. `hex` is the digest's hexadecimal part.
    pub(super) fn blob(&self, hex: &str) -> Result<PathBuf, PullError> {
        let blobs = self.work.join("blobs");
        fs::create_dir_all(&blobs).map_err(io_fault("create", &blobs))?;
        Ok(blobs.join(hex))
    }

    /// An empty folder to unpack into.
    pub(super) fn fresh_root(&self) -> Result<PathBuf, PullError> {
        let root = self.work.join("root");
        match fs::remove_dir_all(&root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_fault("clear", &root)(e)),
            _ => {
                fs::create_dir_all(&root).map_err(io_fault("create", &root))?;
                Ok(root)
            }
        }
    }

    /// Gives the unpacked files the folder's name, in place of an earlier pull's.
    pub(super) fn finish(
        self,
        image: &Image,
        root: Root,
        reference: &str,
    ) -> Result<Pulled, PullError> {
        let unpacked = self.work.join("root").join(root.name());
        let (files, bytes) = count(&unpacked);
        let marker = Marker {
            reference: reference.to_owned(),
            digest: image.digest().to_owned(),
            root: root.name().to_owned(),
            files,
            bytes,
        };
        let text = serde_json::to_vec_pretty(&marker).expect("a marker is plain data");
        let file = unpacked.join(MARKER);
        fs::write(&file, text).map_err(io_fault("write", &file))?;
        let former = self.former();
        if self.folder.exists() {
            fs::rename(&self.folder, &former).map_err(io_fault("move", &self.folder))?;
        }
        fs::rename(&unpacked, &self.folder).map_err(io_fault("create", &self.folder))?;
        fs::remove_dir_all(&self.work).map_err(io_fault("clear", &self.work))?;
        Ok(Pulled {
            folder: self.folder,
            digest: marker.digest,
            root,
            annotations: image.annotations().clone(),
            files,
            bytes,
            was_there: false,
        })
    }
}

/// The lock of the hidden folder.
fn turn(work: &Path) -> Result<File, PullError> {
    loop {
        fs::create_dir_all(work).map_err(io_fault("create", work))?;
        let lock = match File::open(work) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(io_fault("open", work))?,
        };
        lock.lock().map_err(io_fault("lock", work))?;
        // The pull that was waited for has removed the folder that was locked.
        let locked = lock.metadata().map_err(io_fault("read", work))?.ino();
        if fs::metadata(work).is_ok_and(|m| m.ino() == locked) {
            return Ok(lock);
        }
    }
}
