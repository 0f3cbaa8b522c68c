//! Brings an image's files into a folder.
//!
//! Guarantees: every digest is checked, of what lies in the registry and of what it unpacks to;
//! the folder appears whole or not at all; what a broken pull has fetched is not fetched again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use oci_distribution::Reference;

use crate::digest::HashingReader;
use crate::error::Error;
use crate::image::{DATA, Image, MODELS, Source};
use crate::layout;
use crate::manifest::{CONFIG, DOCKER_CONFIG, ImageConfig, LayerKind};
use crate::options::Options;
use crate::reference::Target;
use crate::registry::{Connection, Operation};
use crate::retry::retry;
use crate::untar::{Allowance, UntarError, Wanted, copy, extract};

mod download;
mod error;
mod place;

pub use error::PullError;
pub use place::MARKER;

/// The folder of an image that files are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/data`: adapters, data, and base models too.
    Data,
    /// `/models`: base models.
    Models,
}

impl Root {
    /// Its name in the image.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => DATA,
            Self::Models => MODELS,
        }
    }
}

/// What is taken from an image.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Taken if the image has it; else the other one is.
    pub first: Root,
    /// Most bytes, unpacked.
    pub max_bytes: u64,
    /// Most files and folders.
    pub max_files: u64,
}

impl Default for PullOptions {
    /// `/data` first, up to 1 TiB in a million files.
    fn default() -> Self {
        Self { first: Root::Data, max_bytes: 1 << 40, max_files: 1_000_000 }
    }
}

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Holds what the image has under [`Pulled::root`].
    pub folder: PathBuf,
    pub digest: String,
    pub root: Root,
    pub annotations: BTreeMap<String, String>,
    /// Files in the folder.
    pub files: u64,
    /// Bytes in the folder.
    pub bytes: u64,
    /// The folder held this very image before.
    pub was_there: bool,
}

/// The digest that a reference stands for now.
pub async fn resolve(target: &Target, options: &Options) -> Result<String, Error> {
    match target {
        Target::Registry(reference) => {
            let resolved = retry(options, async || {
                Connection::open(reference, Operation::Pull, options).await?.resolve().await
            });
            Ok(resolved.await?)
        }
        Target::Layout { path, name } => Ok(layout::resolve(path, name)?),
    }
}

/// Brings the files of an image into a folder, which must be new, empty, or from an earlier pull.
pub async fn pull(
    target: &Target,
    folder: &Path,
    what: &PullOptions,
    options: &Options,
) -> Result<Pulled, Error> {
    let place = place::Place::enter(folder)?;
    let image = match target {
        Target::Layout { path, name } => {
            let image = layout::read(path, name)?;
            if let Some(pulled) = place.present(image.digest(), image.annotations()) {
                return Ok(pulled);
            }
            image
        }
        Target::Registry(reference) => match from_registry(reference, &place, options).await? {
            Fetched::Present(pulled) => return Ok(pulled),
            Fetched::Image(image) => image,
        },
    };
    let root = unpack(&image, &place, what, &target.to_string())?;
    Ok(place.finish(&image, root, &target.to_string())?)
}

/// What there was to do for an image of a registry.
enum Fetched {
    Present(Pulled),
    /// Its blobs are files of the place now.
    Image(Image),
}

async fn from_registry(
    reference: &Reference,
    place: &place::Place,
    options: &Options,
) -> Result<Fetched, Error> {
    let opened = retry(options, async || {
        let connection = Connection::open(reference, Operation::Pull, options).await?;
        let (bytes, manifest) = connection.manifest().await?;
        Ok((connection, bytes, manifest))
    });
    let (connection, bytes, manifest) = opened.await?;
    let digest = crate::sha256(&bytes);
    if let Some(pulled) = place.present(&digest, &manifest.annotations) {
        return Ok(Fetched::Present(pulled));
    }
    readable(manifest.layers.iter().map(|l| l.media_type.as_str()), &reference.to_string())?;
    let blobs = download::all(&connection, &manifest, place, options).await?;
    Ok(Fetched::Image(Image::stored(bytes, &manifest, blobs)))
}

/// Refuses an image none of whose layers is an archive.
fn readable<'a>(types: impl Iterator<Item = &'a str>, reference: &str) -> Result<(), PullError> {
    let types: Vec<_> = types.collect();
    if types.iter().any(|t| LayerKind::of(t).is_some()) {
        return Ok(());
    }
    let found = types.first().map_or("", |t| *t).to_owned();
    Err(PullError::MediaType { reference: reference.to_owned(), found })
}

/// Unpacks the layers in their order into the place, and says which folder there was.
fn unpack(
    image: &Image,
    place: &place::Place,
    what: &PullOptions,
    reference: &str,
) -> Result<Root, Error> {
    readable(image.layers().map(|b| b.media_type.as_str()), reference)?;
    let diff_ids = diff_ids(image, reference)?;
    let both = match what.first {
        Root::Data => [Root::Data, Root::Models],
        Root::Models => [Root::Models, Root::Data],
    };
    let roots = both.map(Root::name);
    let into = place.fresh_root()?;
    let mut allowance = Allowance::new(what.max_bytes, what.max_files);
    for (number, blob) in image.layers().enumerate() {
        let Some(kind) = LayerKind::of(&blob.media_type) else { continue };
        let Source::File(path) = &blob.source else { continue };
        let file = File::open(path).map_err(place::io_fault("open", path))?;
        let layer = |kind| format!("layer {} of {reference} {kind}", number + 1);
        let extracted = match kind {
            LayerKind::Root => extract(file, Wanted::Under(&roots), &into, &mut allowance),
            LayerKind::Model => extract(file, Wanted::AllAs(MODELS), &into, &mut allowance),
            LayerKind::ModelFile => {
                let name = blob.file_path.as_deref().unwrap_or_default();
                copy(file, name, &into.join(MODELS), &mut allowance)
            }
        };
        let seen = match extracted {
            // A damaged file is mostly no archive any more; the digest says which of the two.
            Err(error @ UntarError::Archive { .. }) => {
                same(layer("as stored"), &blob.digest, digest_of(path)?)?;
                return Err(error.into());
            }
            seen => seen?,
        };
        same(layer("as stored"), &blob.digest, seen.digest)?;
        if let Some(diff_id) = diff_ids.get(number) {
            same(layer("unpacked"), diff_id, seen.diff_id)?;
        }
    }
    let has_files = |root: &Root| place::count(&into.join(root.name())).0 > 0;
    both.into_iter()
        .find(has_files)
        .ok_or_else(|| PullError::NothingThere { reference: reference.to_owned() }.into())
}

fn digest_of(path: &Path) -> Result<String, PullError> {
    let file = File::open(path).map_err(place::io_fault("open", path))?;
    let (digest, _) = HashingReader::new(file).finish().map_err(place::io_fault("read", path))?;
    Ok(digest)
}

fn same(what: String, expected: &str, actual: String) -> Result<(), PullError> {
    if expected == actual {
        return Ok(());
    }
    Err(PullError::Digest { what, expected: expected.to_owned(), actual })
}

/// Digests of the unpacked layers; none where the configuration is not one of an image.
fn diff_ids(image: &Image, reference: &str) -> Result<Vec<String>, PullError> {
    let config = image.config();
    if ![CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        return Ok(Vec::new());
    }
    let fault = |reason: String| PullError::Config { reference: reference.to_owned(), reason };
    let mut bytes = Vec::new();
    let opened = config.open();
    let read = opened.and_then(|r| {
        std::io::Read::read_to_end(
            &mut std::io::Read::take(r, download::LARGEST_CONFIG),
            &mut bytes,
        )
    });
    read.map_err(|e| fault(e.to_string()))?;
    same(format!("the configuration of {reference}"), &config.digest, crate::sha256(&bytes))?;
    let parsed: ImageConfig = serde_json::from_slice(&bytes).map_err(|e| fault(e.to_string()))?;
    let (layers, ids) = (image.layers().count(), parsed.rootfs.diff_ids);
    if layers != ids.len() {
        return Err(fault(format!("it names {} layers and the manifest {layers}", ids.len())));
    }
    Ok(ids)
}
