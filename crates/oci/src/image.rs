//! How folders become an image: an ordinary one, which container runtimes mount and KAITO reads.
//!
//! Equal files give an equal digest, whatever the machine, the time and the user. Nothing is
//! copied: layers are read from the folders whenever they are needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

use crate::digest::{HashingReader, sha256};
use crate::manifest::{
    CONFIG, Descriptor, FILE_PATH, ImageConfig, LAYER, MANIFEST, Manifest, RootFs,
};
use crate::platform;
use crate::program::Execution;
use crate::tar_stream::{self, Content, Entry, TarStream};

/// Keys of annotations of a manifest.
pub mod annotation {
    /// The model's name, which KAITO asks for.
    pub const MODEL_NAME: &str = "sh.kaito.model.name";
    /// What the user named as base model.
    pub const BASE_MODEL: &str = "anneal.dev/base-model";
    /// Digest of the base model.
    pub const BASE_MODEL_DIGEST: &str = "anneal.dev/base-model-digest";
    /// Digest of the data that was trained on.
    pub const DATA_DIGEST: &str = "anneal.dev/data-digest";
    /// Digest of the run's specification.
    pub const RUN_SPEC_DIGEST: &str = "anneal.dev/run-spec-digest";
    /// The final scores, as a JSON object.
    pub const METRICS: &str = "anneal.dev/metrics";
}

/// The folder of an image that adapters and data are in.
pub const DATA: &str = "data";
/// The folder of an image that base models are in.
pub const MODELS: &str = "models";
/// The folder of an adapter image for what readers of adapters do not look at.
pub const EXTRA: &str = "anneal";

const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Files from this size on are a layer each, so that shards that two models share are stored once
/// and a broken transfer does not begin anew. 64 MiB.
const OWN_LAYER: u64 = 64 << 20;
/// Overlay file systems take 127 layers; more large files than this go into one layer.
const MOST_LARGE_LAYERS: usize = 60;

/// Why folders do not make an image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The disk refused.
    #[error("cannot read {path} for the image")]
    Read { path: PathBuf, source: io::Error },
    /// The folder has no adapter in PEFT's format.
    #[error("{folder} holds no adapter: {missing} is missing")]
    NoAdapter { folder: PathBuf, missing: &'static str },
    /// PEFT's configuration does not parse.
    #[error("{path} is not valid JSON: {reason}")]
    AdapterConfig { path: PathBuf, reason: String },
    /// There is nothing to put into the image.
    #[error("{folder} holds no files")]
    Empty { folder: PathBuf },
    /// Tar cannot hold the name.
    #[error("the name of {path} does not fit into an image")]
    Name { path: PathBuf },
    /// Sockets, devices and links to folders have no place in an image.
    #[error("{path} is neither a file nor a folder")]
    Special { path: PathBuf },
}

/// An image whose blobs can be read any number of times.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) manifest: Bytes,
    pub(crate) media_type: String,
    digest: String,
    annotations: BTreeMap<String, String>,
    blobs: Vec<Blob>,
}

/// One blob of an image.
#[derive(Clone, Debug)]
pub struct Blob {
    pub media_type: String,
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// The path that a ModelPack layer of one file gives it.
    pub(crate) file_path: Option<String>,
    pub(crate) source: Source,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Tar(TarStream),
}

/// A folder on the disk and its place in the image.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'a> {
    /// Name of the folder in the image's root, such as [`DATA`] or [`MODELS`].
    pub root: &'a str,
    /// A folder, or a single file that becomes its only content.
    pub path: &'a Path,
}

impl Image {
    /// The digest of the manifest, which names the image.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the manifest says of the image.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Layers in their order, then the configuration.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Layers in their order.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.split_last().map_or(&[][..], |(_, layers)| layers).iter()
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Blob {
        self.blobs.last().expect("every image has a configuration")
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|b| b.size).sum()
    }

    pub(crate) fn stored(manifest: Bytes, parsed: &Manifest, blobs: Vec<Blob>) -> Self {
        Self {
            digest: sha256(&manifest),
            media_type: parsed.media_type.clone().unwrap_or_else(|| MANIFEST.to_owned()),
            annotations: parsed.annotations.clone(),
            manifest,
            blobs,
        }
    }
}

impl Blob {
    /// What a manifest describes, in a file on the disk.
    pub(crate) fn in_file(descriptor: &Descriptor, file: PathBuf) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            file_path: descriptor.annotations.get(FILE_PATH).cloned(),
            source: Source::File(file),
        }
    }

    /// Reads the blob from its start.
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.source {
            Source::Bytes(bytes) => Box::new(Cursor::new(bytes.clone())),
            Source::File(path) => Box::new(File::open(path)?),
            Source::Tar(tar) => Box::new(tar.open()),
        })
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

/// The image of an adapter in PEFT's format.
///
/// Configuration and weights are one uncompressed layer under `/data`; everything else in the
/// folder is a second one under `/anneal`, where readers of adapters do not look. Unless
/// `annotations` name the model, the base model's name in the adapter's configuration is taken.
pub fn adapter_image(
    folder: &Path,
    annotations: &BTreeMap<String, String>,
) -> Result<Image, ImageError> {
    for missing in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
        if !folder.join(missing).is_file() {
            return Err(ImageError::NoAdapter { folder: folder.to_owned(), missing });
        }
    }
    let mut annotations = annotations.clone();
    let base_model = base_model_name(&folder.join(ADAPTER_CONFIG))?;
    annotations.entry(annotation::MODEL_NAME.to_owned()).or_insert(base_model);

    let is_adapter = |e: &Entry| {
        let name = e.path.rsplit_once('/').map_or(e.path.as_str(), |(_, name)| name);
        name == ADAPTER_CONFIG || name == ADAPTER_WEIGHTS
    };
    let (adapter, extra): (Vec<_>, Vec<_>) = files(Folder { root: DATA, path: folder })?
        .into_iter()
        .partition(|e| e.path.matches('/').count() == 1 && is_adapter(e));
    let extra: Vec<_> =
        extra.into_iter().map(|e| Entry { path: e.path.replacen(DATA, EXTRA, 1), ..e }).collect();
    let mut layers = vec![layer(adapter)?];
    if !extra.is_empty() {
        layers.push(layer(extra)?);
    }
    Ok(assemble(layers, annotations, None))
}

/// The image of any folders, each in its place. Files whose name begins with a dot are left out.
pub fn image_from_dirs(
    folders: &[Folder<'_>],
    annotations: &BTreeMap<String, String>,
) -> Result<Image, ImageError> {
    let mut layers = Vec::new();
    for folder in folders {
        let found = files(*folder)?;
        if found.is_empty() {
            return Err(ImageError::Empty { folder: folder.path.to_owned() });
        }
        let is_large =
            |e: &Entry| matches!(e.content, Content::File { size, .. } if size >= OWN_LAYER);
        let (large, small): (Vec<_>, Vec<_>) = found.iter().cloned().partition(is_large);
        if large.len() > MOST_LARGE_LAYERS {
            layers.push(layer(found)?);
            continue;
        }
        if !small.is_empty() {
            layers.push(layer(small)?);
        }
        for file in large {
            layers.push(layer(vec![file])?);
        }
    }
    Ok(assemble(layers, annotations.clone(), None))
}

fn base_model_name(config: &Path) -> Result<String, ImageError> {
    let text = std::fs::read(config)
        .map_err(|source| ImageError::Read { path: config.to_owned(), source })?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| {
        ImageError::AdapterConfig { path: config.to_owned(), reason: e.to_string() }
    })?;
    let base = value.get("base_model_name_or_path").and_then(|v| v.as_str()).unwrap_or_default();
    // It may be a path of the machine that trained: only the last part means something elsewhere.
    let name = base.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Ok(if name.is_empty() { "unknown".to_owned() } else { name.to_owned() })
}

/// All files of a folder as entries below `root/`, sorted.
fn files(folder: Folder<'_>) -> Result<Vec<Entry>, ImageError> {
    let mut entries = Vec::new();
    let metadata = metadata(folder.path)?;
    if metadata.is_file() {
        let name = folder.path.file_name().unwrap_or_default();
        add_file(&format!("{}/", folder.root), name, folder.path, &metadata, &mut entries)?;
    } else {
        walk(folder.path, &format!("{}/", folder.root), &mut entries)?;
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

fn walk(folder: &Path, prefix: &str, entries: &mut Vec<Entry>) -> Result<(), ImageError> {
    let fault = |source| ImageError::Read { path: folder.to_owned(), source };
    for found in std::fs::read_dir(folder).map_err(fault)? {
        let found = found.map_err(fault)?;
        let (name, path) = (found.file_name(), found.path());
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Links to files are followed: the hub's cache consists of them. Links to folders could
        // lead in a circle.
        let metadata = metadata(&path)?;
        if metadata.is_file() {
            add_file(prefix, &name, &path, &metadata, entries)?;
        } else if metadata.is_dir() && !path.is_symlink() {
            let name = name.to_str().ok_or_else(|| ImageError::Name { path: path.clone() })?;
            walk(&path, &format!("{prefix}{name}/"), entries)?;
        } else {
            return Err(ImageError::Special { path });
        }
    }
    Ok(())
}

fn add_file(
    prefix: &str,
    name: &std::ffi::OsStr,
    path: &Path,
    metadata: &std::fs::Metadata,
    entries: &mut Vec<Entry>,
) -> Result<(), ImageError> {
    let name = name.to_str().ok_or_else(|| ImageError::Name { path: path.to_owned() })?;
    let content = Content::File { path: path.to_owned(), size: metadata.len() };
    entries.push(Entry { path: format!("{prefix}{name}"), mode: tar_stream::FILE, content });
    Ok(())
}

pub(crate) fn metadata(path: &Path) -> Result<std::fs::Metadata, ImageError> {
    std::fs::metadata(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })
}

/// One uncompressed layer, with the folders that its files are in.
pub(crate) fn layer(files: Vec<Entry>) -> Result<Blob, ImageError> {
    let mut entries = BTreeMap::new();
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            let path = file.path[..=end].to_owned();
            let mode = tar_stream::FOLDER;
            entries.insert(path.clone(), Entry { path, mode, content: Content::Folder });
        }
        entries.insert(file.path.clone(), file);
    }
    let entries: Vec<_> = entries.into_values().collect();
    let path = |e: &Entry| match &e.content {
        Content::Folder | Content::Text(_) => PathBuf::from(&e.path),
        Content::File { path, .. } => path.clone(),
    };
    if let Some(long) = entries.iter().find(|e| !crate::tar_stream::fits(&e.path)) {
        return Err(ImageError::Name { path: path(long) });
    }
    let first = entries.first().map(path).unwrap_or_default();
    let fault = |source| ImageError::Read { path: first.clone(), source };
    let tar = TarStream::new(&entries).map_err(fault)?;
    let (digest, size) = HashingReader::new(tar.open()).finish().map_err(fault)?;
    let (media_type, source) = (LAYER.to_owned(), Source::Tar(tar));
    Ok(Blob { media_type, digest, size, file_path: None, source })
}

pub(crate) fn assemble(
    mut layers: Vec<Blob>,
    annotations: BTreeMap<String, String>,
    config: Option<Execution>,
) -> Image {
    // A layer that is not compressed has the same digest packed and unpacked.
    let diff_ids = layers.iter().map(|l| l.digest.clone()).collect();
    // Models and data are the same for each platform, and so must be their digest.
    let architecture = if config.is_some() { platform::own() } else { "amd64" };
    let config = ImageConfig {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
    };
    let config = config_blob(&config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        config: config.descriptor(),
        layers: layers.iter().map(Blob::descriptor).collect(),
        annotations,
    };
    layers.push(config);
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has string keys only");
    Image::stored(bytes.into(), &manifest, layers)
}

fn config_blob(config: &ImageConfig) -> Blob {
    let bytes = Bytes::from(serde_json::to_vec(config).expect("a config has string keys only"));
    Blob {
        media_type: CONFIG.to_owned(),
        digest: sha256(&bytes),
        size: bytes.len() as u64,
        file_path: None,
        source: Source::Bytes(bytes),
    }
}
