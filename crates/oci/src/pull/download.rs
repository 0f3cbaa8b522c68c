//! Fetches the blobs of an image, each from where a broken transfer stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use futures::StreamExt as _;
use oci_distribution::errors::DigestError;

use super::PullError;
use super::place::{Place, io_fault};
use crate::digest::{Hasher, hex_part};
use crate::error::Error;
use crate::image::Blob;
use crate::manifest::{Descriptor, LayerKind, Manifest};
use crate::options::{Event, Options};
use crate::registry::{Connection, RegistryError};
use crate::retry::retry;

/// Largest configuration of an image. Real ones have a few kilobytes.
pub(super) const LARGEST_CONFIG: u64 = 4 << 20;

/// All layers that can be read, and the configuration. Layers of other kinds stay where they are.
pub(super) async fn all(
    connection: &Connection,
    manifest: &Manifest,
    place: &Place,
    options: &Options,
) -> Result<Vec<Blob>, Error> {
    let is_wanted = |d: &Descriptor| LayerKind::of(&d.media_type).is_some();
    let size = |d: &Descriptor| if is_wanted(d) { d.size } else { 0 };
    let total = manifest.layers.iter().map(size).sum::<u64>() + manifest.config.size;
    let (mut done, mut blobs) = (0, Vec::new());
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        let is_config = std::ptr::eq(descriptor, &raw const manifest.config);
        let reference = connection.reference().to_string();
        let fault = |reason| PullError::Config { reference: reference.clone(), reason };
        let hex = hex_part(&descriptor.digest).ok_or_else(|| {
            fault(format!("`{}` is not a SHA-256 digest", descriptor.digest.escape_debug()))
        })?;
        let file = place.blob(hex)?;
        if is_config && descriptor.size > LARGEST_CONFIG {
            return Err(fault(format!("it has {} bytes", descriptor.size)).into());
        }
        if is_config || is_wanted(descriptor) {
            let progress = Progress { before: done, total, options };
            blob(connection, descriptor, &file, &progress).await?;
            done += descriptor.size;
            options.tell(&Event::Progress { done, total });
        }
        blobs.push(Blob::in_file(descriptor, file));
    }
    Ok(blobs)
}

struct Progress<'a> {
    /// Bytes of earlier blobs.
    before: u64,
    total: u64,
    options: &'a Options,
}

/// Makes `file` the blob. A file of that name was checked before it got the name.
async fn blob(
    connection: &Connection,
    descriptor: &Descriptor,
    file: &Path,
    progress: &Progress<'_>,
) -> Result<(), Error> {
    let options = progress.options;
    if fs::metadata(file).is_ok_and(|m| m.len() == descriptor.size) {
        options.tell(&Event::Present { digest: descriptor.digest.clone(), size: descriptor.size });
        return Ok(());
    }
    let part = file.with_extension("part");
    let resumed = fs::metadata(&part).is_ok_and(|m| m.len() > 0);
    let mut fetched =
        retry(options, async || attempt(connection, descriptor, &part, progress).await).await;
    if resumed && matches!(fetched, Err(RegistryError::Digest { .. })) {
        // What an earlier pull left may have been the bad part; it is gone now.
        fetched =
            retry(options, async || attempt(connection, descriptor, &part, progress).await).await;
    }
    fetched?;
    Ok(fs::rename(&part, file).map_err(io_fault("write", file))?)
}

/// Appends to `part` until it is the blob.
async fn attempt(
    connection: &Connection,
    descriptor: &Descriptor,
    part: &Path,
    progress: &Progress<'_>,
) -> Result<(), RegistryError> {
    let disk = |e: io::Error| RegistryError::Disk { path: part.to_owned(), source: e };
    let (mut hasher, mut out) = resume(part).map_err(disk)?;
    if hasher.size > descriptor.size {
        (hasher, out) = afresh(part).map_err(disk)?;
    }
    if hasher.size < descriptor.size {
        let (mut stream, continues) = connection.download(&descriptor.digest, hasher.size).await?;
        if !continues {
            (hasher, out) = afresh(part).map_err(disk)?;
        }
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(e) if is_digest(&e) => break,
                Err(e) => return Err(connection.broken(&e)),
            };
            hasher.feed(&piece);
            if hasher.size > descriptor.size {
                break;
            }
            out.write_all(&piece).map_err(disk)?;
            let done = progress.before + hasher.size;
            progress.options.tell(&Event::Progress { done, total: progress.total });
        }
    }
    finish(hasher, descriptor, part, &out)
}

fn finish(
    hasher: Hasher,
    descriptor: &Descriptor,
    part: &Path,
    out: &File,
) -> Result<(), RegistryError> {
    let disk = |e: io::Error| RegistryError::Disk { path: part.to_owned(), source: e };
    let (size, actual) = (hasher.size, hasher.digest());
    if actual != descriptor.digest {
        fs::remove_file(part).map_err(disk)?;
        let what = format!("a blob of {} or {size} bytes", descriptor.size);
        let what = if size == descriptor.size { "a blob".to_owned() } else { what };
        return Err(RegistryError::Digest { what, expected: descriptor.digest.clone(), actual });
    }
    out.sync_all().map_err(disk)
}

/// Whether the client found the digest wrong at the end of a whole blob.
fn is_digest(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<DigestError>)
}

/// What is there already, hashed, and the file to append to.
fn resume(part: &Path) -> io::Result<(Hasher, File)> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(part)?;
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hasher, file));
        }
        hasher.feed(&buffer[..count]);
    }
}

fn afresh(part: &Path) -> io::Result<(Hasher, File)> {
    Ok((Hasher::default(), File::create(part)?))
}
