//! Puts an image where a user wants it.
//!
//! Guarantees: blobs that are there already are not sent again; the manifest comes last, so that a
//! broken push leaves what was there before; what may pass is tried again.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use oci_distribution::Reference;
use oci_distribution::errors::OciDistributionError;

use crate::error::Error;
use crate::image::{Blob, Image};
use crate::layout;
use crate::options::{Event, Options};
use crate::reference::{ReferenceError, Target};
use crate::registry::{Connection, Operation, RegistryError};
use crate::retry::retry;

/// Bytes of one request: registries behind GitHub take no more.
const PIECE: usize = 4 << 20;

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Where the image is now, by tag.
    pub target: Target,
    /// The digest of its manifest.
    pub digest: String,
    /// Bytes of the image.
    pub size: u64,
    /// Bytes that were sent or written; the rest was there.
    pub sent: u64,
}

/// Puts an image into a registry or a layout folder.
pub async fn push(image: &Image, target: &Target, options: &Options) -> Result<Pushed, Error> {
    let sent = match target {
        Target::Registry(reference) => to_registry(image, reference, options).await?,
        Target::Layout { path, name } => layout::write(path, image, name, options)?,
    };
    let (target, digest) = (target.clone(), image.digest().to_owned());
    Ok(Pushed { target, digest, size: image.size(), sent })
}

/// Finds out whether a push would be allowed, before there is something to push.
pub async fn check_push(target: &Target, options: &Options) -> Result<(), Error> {
    match target {
        Target::Registry(reference) => {
            tagged(reference)?;
            let tried = retry(options, async || {
                Connection::open(reference, Operation::Push, options).await?.try_upload().await
            });
            Ok(tried.await?)
        }
        Target::Layout { path, name } => Ok(layout::check_write(path, name)?),
    }
}

fn tagged(reference: &Reference) -> Result<(), ReferenceError> {
    match reference.digest() {
        None => Ok(()),
        Some(_) => Err(ReferenceError {
            text: reference.to_string(),
            reason: "an image is pushed under a tag and not under a digest",
        }),
    }
}

async fn to_registry(
    image: &Image,
    reference: &Reference,
    options: &Options,
) -> Result<u64, Error> {
    tagged(reference)?;
    let opened =
        retry(options, async || Connection::open(reference, Operation::Push, options).await);
    let connection = opened.await?;
    let (mut done, mut sent) = (0, 0);
    for blob in image.blobs() {
        let is_new =
            retry(options, async || push_blob(&connection, blob, image, done, options).await);
        sent += if is_new.await? { blob.size } else { 0 };
        done += blob.size;
        options.tell(&Event::Progress { done, total: image.size() });
    }
    let put = retry(options, async || {
        connection.put_manifest(image.manifest.clone(), &image.media_type).await
    });
    put.await?;
    Ok(sent)
}

/// Sends a blob unless it is there; says whether it was sent.
async fn push_blob(
    connection: &Connection,
    blob: &Blob,
    image: &Image,
    before: u64,
    options: &Options,
) -> Result<bool, RegistryError> {
    if connection.has_blob(&blob.digest).await? {
        options.tell(&Event::Present { digest: blob.digest.clone(), size: blob.size });
        return Ok(false);
    }
    let source = |e: io::Error| RegistryError::Source {
        reference: connection.reference().to_string(),
        reason: e.to_string(),
    };
    let reader = blob.open().map_err(source)?;
    let (on_event, total) = (Arc::clone(&options.on_event), image.size());
    let told = move |sent| on_event(&Event::Progress { done: before + sent, total });
    connection.upload(pieces(reader, told), &blob.digest).await?;
    Ok(true)
}

/// The reader's content, one request at a time; `told` hears how much was read.
fn pieces(
    reader: Box<dyn Read + Send>,
    told: impl Fn(u64) + Clone + Send + 'static,
) -> impl stream::Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
    stream::try_unfold((reader, 0), move |(reader, before)| {
        let told = told.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || piece(reader));
            let (piece, reader) = read.await.map_err(io::Error::other)??;
            if piece.is_empty() {
                return Ok(None);
            }
            let sent = before + piece.len() as u64;
            told(sent);
            Ok(Some((piece, (reader, sent))))
        }
    })
}

fn piece(mut reader: Box<dyn Read + Send>) -> io::Result<(Bytes, Box<dyn Read + Send>)> {
    let mut piece = Vec::with_capacity(PIECE);
    reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
    Ok((piece.into(), reader))
}
