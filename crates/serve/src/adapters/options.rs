//! How adapters are followed.

use std::path::PathBuf;
use std::time::Duration;

use super::declared::{Declaration, Declared};

/// How adapters are followed.
#[derive(Clone, Debug)]
pub struct AdapterOptions {
    /// The file that declares them; without one there are none.
    pub file: Option<Declaration>,
    /// Where pulled images are kept.
    pub cache: PathBuf,
    /// Time between two looks.
    pub every: Duration,
    /// Most bytes of one adapter's image.
    pub image_bytes: u64,
    /// Bytes of images on disk beyond which those that nobody declares are removed.
    pub disk_bytes: u64,
    pub registry: oci::Options,
    /// Registries that are spoken to over http, as `host:port`.
    pub plain_http: Vec<String>,
}

impl AdapterOptions {
    /// None are declared; their images are kept in `cache`.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            file: None,
            cache,
            every: Duration::from_secs(5),
            image_bytes: 4 << 30,
            disk_bytes: 10 << 30,
            registry: oci::Options::default(),
            plain_http: Vec::new(),
        }
    }

    /// How the registry of an adapter's image is spoken to; where its login is missing, that.
    pub(super) fn registry_of(
        &self,
        adapter: &Declared,
        image: &str,
    ) -> Result<oci::Options, String> {
        let host = image.split('/').next().unwrap_or_default();
        let plain_http =
            self.registry.plain_http || self.plain_http.iter().any(|plain| plain == host);
        let mut options = oci::Options { plain_http, ..self.registry.clone() };
        if let Some(folder) = &adapter.docker_config {
            if !folder.join("config.json").is_file() {
                return Err(format!("its login is not there: {}", folder.display()));
            }
            options.docker_config = Some(folder.clone());
        }
        Ok(options)
    }
}
