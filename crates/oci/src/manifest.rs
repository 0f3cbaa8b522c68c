//! Manifests and configurations, read and written: only the fields that matter here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::program::Execution;

/// Media types that are written.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Media types of Docker that mean the same.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Manifests that a registry is asked for.
pub(crate) const ACCEPTED: &[&str] = &[MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// The key of a tag in the index of a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The key of a file's path, of a ModelPack layer that is a file.
pub(crate) const FILE_PATH: &str = "org.cncf.model.filepath";

/// How the files of a layer are told from its media type. Compression is told from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// An archive of an image: it has the whole root folder.
    Root,
    /// An archive of ModelPack: it has the model's files alone.
    Model,
    /// One file of a model, as ModelPack stores it.
    ModelFile,
}

impl LayerKind {
    /// Nothing for what is not read: other kinds of layers, and ModelPack's code and data sets.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        let is_archive = |rest: &str| matches!(rest, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd");
        let image = [LAYER, "application/vnd.docker.image.rootfs.diff.tar"];
        let mut rests = image.iter().filter_map(|plain| media_type.strip_prefix(plain));
        if rests.any(is_archive) {
            return Some(Self::Root);
        }
        let model = media_type.strip_prefix("application/vnd.cncf.model.")?;
        let (part, form) = model.split_once(".v1.")?;
        match (part, form.strip_prefix("tar")) {
            ("weight" | "weight.config" | "doc", Some(rest)) if is_archive(rest) => {
                Some(Self::Model)
            }
            ("weight" | "weight.config" | "doc", None) if form == "raw" => Some(Self::ModelFile),
            _ => None,
        }
    }
}

/// A blob or manifest by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Several images: of several platforms, or the tags of a layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a manifest's address may hold.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Index),
}

impl Document {
    /// Reads a manifest; the error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline {
            #[serde(default)]
            schema_version: u32,
            media_type: Option<String>,
            manifests: Option<serde_json::Value>,
            layers: Option<serde_json::Value>,
        }
        let outline: Outline = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if outline.schema_version != 2 {
            return Err(format!("its schema version is {} and not 2", outline.schema_version));
        }
        let fault = |e: serde_json::Error| e.to_string();
        match (outline.media_type.as_deref(), outline.layers, outline.manifests) {
            (Some(INDEX | DOCKER_INDEX), _, _) | (None, None, Some(_)) => {
                serde_json::from_slice(bytes).map(Self::Index).map_err(fault)
            }
            (Some(MANIFEST | DOCKER_MANIFEST), _, _) | (None, Some(_), _) => {
                serde_json::from_slice(bytes).map(Self::Image).map_err(fault)
            }
            (Some(other), _, _) => Err(format!("its media type is `{other}`")),
            (None, None, None) => Err("it has neither layers nor manifests".to_owned()),
        }
    }
}

/// The part of an image configuration that says what its layers hold once unpacked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) os: String,
    /// Written and never read: nothing is started here.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Execution>,
    pub(crate) rootfs: RootFs,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<String>,
}
