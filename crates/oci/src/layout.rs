//! Images in a folder, as the OCI image layout specification orders them.
//!
//! Guarantees: a reader sees either the former state or the new one, whenever a writer is killed;
//! adding an image keeps all others; two writers take turns. Nothing is ever deleted but what a
//! killed writer left behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use thiserror::Error;

use crate::digest::{Hasher, hex_part, sha256};
use crate::image::{Blob, Image};
use crate::manifest::{Descriptor, Document, INDEX, Index, Manifest, REF_NAME};
use crate::options::{Event, Options};
use crate::platform;
use crate::reference::{DEFAULT_TAG, Name};

const MARKER: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
/// Beginning of the names of files that are not complete yet.
const UNFINISHED: &str = ".writing-";

/// Why a layout folder could not be read or written.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// There is no layout here.
    #[error("{path} is not an OCI layout folder: {missing} is missing")]
    NotALayout { path: PathBuf, missing: &'static str },
    /// A file of the layout says something that it may not.
    #[error("the OCI layout {path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The image is not there.
    #[error("the OCI layout {path} has no image {wanted}; it has {present}")]
    NoSuchImage { path: PathBuf, wanted: String, present: String },
    /// A folder with other things in it is not made a layout.
    #[error("{path} is not an OCI layout folder, and not empty")]
    Occupied { path: PathBuf },
    /// A layout is written under a tag.
    #[error("an image is stored under a tag and not under the digest {digest}")]
    DigestAsName { digest: String },
    /// What was read differs from what was announced.
    #[error("{what} has the digest {actual} and not {expected}")]
    Digest { what: String, expected: String, actual: String },
    /// The disk refused.
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn io_fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    move |source| LayoutError::Io { doing, path: path.to_owned(), source }
}

/// Tags and the digests that they stand for, sorted.
pub fn tags(path: &Path) -> Result<BTreeMap<String, String>, LayoutError> {
    let index = read_index(path)?;
    let tag = |d: &Descriptor| Some((d.annotations.get(REF_NAME)?.clone(), d.digest.clone()));
    Ok(index.manifests.iter().filter_map(tag).collect())
}

/// The digest of the image that a name stands for.
pub fn resolve(path: &Path, name: &Name) -> Result<String, LayoutError> {
    find(path, name).map(|descriptor| descriptor.digest)
}

/// Reads an image. Its blobs are checked when they are used.
pub fn read(path: &Path, name: &Name) -> Result<Image, LayoutError> {
    let mut descriptor = find(path, name)?;
    // An index within an index is an image of several platforms.
    for _ in 0..2 {
        let bytes = read_manifest(path, &descriptor)?;
        let damaged = |reason| LayoutError::Damaged { path: path.to_owned(), reason };
        match Document::parse(&bytes).map_err(damaged)? {
            Document::Image(manifest) => return stored_image(path, bytes, &manifest),
            Document::Index(index) => {
                let none = || damaged(format!("the index {} names no image", descriptor.digest));
                descriptor = platform::choose(&index).cloned().ok_or_else(none)?;
            }
        }
    }
    Err(LayoutError::Damaged {
        path: path.to_owned(),
        reason: format!("{} is an index of indexes", descriptor.digest),
    })
}

fn stored_image(path: &Path, bytes: Vec<u8>, manifest: &Manifest) -> Result<Image, LayoutError> {
    let mut blobs = Vec::new();
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        let file = blob_path(path, &descriptor.digest)?;
        let size = fs::metadata(&file).map_err(io_fault("read", &file))?.len();
        if size != descriptor.size {
            let reason =
                format!("{} has {size} bytes and not {}", descriptor.digest, descriptor.size);
            return Err(LayoutError::Damaged { path: path.to_owned(), reason });
        }
        blobs.push(Blob::in_file(descriptor, file));
    }
    Ok(Image::stored(bytes.into(), manifest, blobs))
}

fn read_manifest(path: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
    let file = blob_path(path, &descriptor.digest)?;
    let bytes = fs::read(&file).map_err(io_fault("read", &file))?;
    let actual = sha256(&bytes);
    if actual != descriptor.digest {
        let (what, expected) = (file.display().to_string(), descriptor.digest.clone());
        return Err(LayoutError::Digest { what, expected, actual });
    }
    Ok(bytes)
}

fn blob_path(path: &Path, digest: &str) -> Result<PathBuf, LayoutError> {
    let hex = hex_part(digest).ok_or_else(|| LayoutError::Damaged {
        path: path.to_owned(),
        reason: format!("`{digest}` is not a SHA-256 digest"),
    })?;
    Ok(path.join("blobs/sha256").join(hex))
}

fn read_index(path: &Path) -> Result<Index, LayoutError> {
    let file = path.join(INDEX_FILE);
    for missing in [MARKER, INDEX_FILE] {
        if !path.join(missing).is_file() {
            return Err(LayoutError::NotALayout { path: path.to_owned(), missing });
        }
    }
    let bytes = fs::read(&file).map_err(io_fault("read", &file))?;
    serde_json::from_slice(&bytes).map_err(|e| LayoutError::Damaged {
        path: path.to_owned(),
        reason: format!("{INDEX_FILE}: {e}"),
    })
}

fn find(path: &Path, name: &Name) -> Result<Descriptor, LayoutError> {
    let index = read_index(path)?;
    let tagged = |wanted: &str| {
        let is_it = |d: &&Descriptor| d.annotations.get(REF_NAME).is_some_and(|t| t == wanted);
        index.manifests.iter().find(is_it)
    };
    let (found, wanted) = match name {
        Name::Tag(tag) => (tagged(tag), format!("tagged `{tag}`")),
        Name::Digest(digest) => {
            (index.manifests.iter().find(|d| d.digest == *digest), format!("`{digest}`"))
        }
        Name::Unnamed => match index.manifests.as_slice() {
            [only] => (Some(only), String::new()),
            _ => (tagged(DEFAULT_TAG), format!("tagged `{DEFAULT_TAG}`")),
        },
    };
    found.cloned().ok_or_else(|| {
        let tags = index.manifests.iter().filter_map(|d| d.annotations.get(REF_NAME));
        let tags: Vec<_> = tags.map(|t| format!("`{t}`")).collect();
        let present = if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") };
        LayoutError::NoSuchImage { path: path.to_owned(), wanted, present }
    })
}

/// Stores an image under a tag, which a former image of that tag loses.
///
/// The folder is made if need be. Returns the bytes that were written.
pub fn write(
    path: &Path,
    image: &Image,
    name: &Name,
    options: &Options,
) -> Result<u64, LayoutError> {
    let tag = match name {
        Name::Unnamed => DEFAULT_TAG,
        Name::Tag(tag) => tag,
        Name::Digest(digest) => {
            return Err(LayoutError::DigestAsName { digest: digest.clone() });
        }
    };
    let _turn = prepare(path)?;
    let (mut done, mut written, total) = (0, 0, image.size());
    for blob in image.blobs() {
        let file = blob_path(path, &blob.digest)?;
        if fs::metadata(&file).is_ok_and(|m| m.len() == blob.size) {
            options.tell(&Event::Present { digest: blob.digest.clone(), size: blob.size });
            done += blob.size;
        } else {
            write_blob(&file, blob, &mut |count| {
                done += count;
                options.tell(&Event::Progress { done, total });
            })?;
            written += blob.size;
        }
        options.tell(&Event::Progress { done, total });
    }
    replace(&blob_path(path, image.digest())?, &image.manifest)?;
    put_in_index(path, image, tag)?;
    Ok(written)
}

/// Finds out whether an image could be stored here, as far as that can be told.
pub(crate) fn check_write(path: &Path, name: &Name) -> Result<(), LayoutError> {
    if let Name::Digest(digest) = name {
        return Err(LayoutError::DigestAsName { digest: digest.clone() });
    }
    let _turn = prepare(path)?;
    // Space for a file shows most of what may be wrong with a disk.
    let probe = path.join("blobs/sha256").join(format!("{UNFINISHED}probe"));
    fs::write(&probe, [0; 4096]).map_err(io_fault("write", &probe))?;
    fs::remove_file(&probe).map_err(io_fault("remove", &probe))
}

/// Makes the folder a layout, clears what a killed writer left, and takes the turn.
fn prepare(path: &Path) -> Result<File, LayoutError> {
    let marker = path.join(MARKER);
    if !marker.is_file() && path.read_dir().is_ok_and(|mut d| d.next().is_some()) {
        // A killed writer may have come no further than `blobs`.
        let foreign = |name: std::ffi::OsString| {
            name != "blobs" && !name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
        };
        let entries = path.read_dir().map_err(io_fault("read", path))?;
        if entries.flatten().any(|e| foreign(e.file_name())) {
            return Err(LayoutError::Occupied { path: path.to_owned() });
        }
    }
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(io_fault("create", &blobs))?;
    let lock = File::open(&blobs).map_err(io_fault("open", &blobs))?;
    lock.lock().map_err(io_fault("lock", &blobs))?;
    for folder in [path, &blobs] {
        for entry in folder.read_dir().map_err(io_fault("read", folder))?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                fs::remove_file(entry.path()).map_err(io_fault("remove", &entry.path()))?;
            }
        }
    }
    if !marker.is_file() {
        replace(&marker, json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;
    }
    Ok(lock)
}

fn put_in_index(path: &Path, image: &Image, tag: &str) -> Result<(), LayoutError> {
    let empty = || Index {
        schema_version: 2,
        media_type: Some(INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
    };
    let exists = path.join(INDEX_FILE).is_file();
    let mut index = if exists { read_index(path)? } else { empty() };
    index.manifests.retain(|d| d.annotations.get(REF_NAME).is_none_or(|t| t != tag));
    index.manifests.push(Descriptor {
        media_type: image.media_type.clone(),
        digest: image.digest().to_owned(),
        size: image.manifest.len() as u64,
        annotations: BTreeMap::from([(REF_NAME.to_owned(), tag.to_owned())]),
        platform: None,
    });
    let bytes = serde_json::to_vec_pretty(&index).expect("an index has string keys only");
    replace(&path.join(INDEX_FILE), &bytes)
}

fn write_blob(file: &Path, blob: &Blob, progress: &mut dyn FnMut(u64)) -> Result<(), LayoutError> {
    let mut reader = blob.open().map_err(io_fault("read the source of", file))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    place(file, |out| {
        loop {
            let count = reader.read(&mut buffer).map_err(io_fault("read the source of", file))?;
            if count == 0 {
                break;
            }
            hasher.feed(&buffer[..count]);
            out.write_all(&buffer[..count]).map_err(io_fault("write", file))?;
            progress(count as u64);
        }
        let (actual, expected) = (hasher.digest(), blob.digest.clone());
        if actual == expected {
            return Ok(());
        }
        Err(LayoutError::Digest {
            what: format!("the source of {}", file.display()),
            expected,
            actual,
        })
    })
}

fn replace(file: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    place(file, |out| out.write_all(bytes).map_err(io_fault("write", file)))
}

/// Writes a file aside, on the disk to the last byte, and then gives it its name.
fn place(
    file: &Path,
    content: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let aside = file.with_file_name(format!("{UNFINISHED}{name}"));
    let mut out = File::create(&aside).map_err(io_fault("create", &aside))?;
    let placed = content(&mut out).and_then(|()| {
        let named = out.sync_all().and_then(|()| fs::rename(&aside, file));
        named.map_err(io_fault("write", file))
    });
    if placed.is_err() {
        // What remains of a full disk is worth more empty.
        let _ = fs::remove_file(&aside);
    }
    placed
}
