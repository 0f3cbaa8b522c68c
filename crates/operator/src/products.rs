//! The GPU products that there are: the built-in ones, and those of a file, which is read again once it has
//! changed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use plan::Catalogue;
use tracing::{info, warn};

/// The products, as they were read last.
#[derive(Debug)]
pub(crate) struct Products {
    file: Option<PathBuf>,
    known: Mutex<(Option<SystemTime>, Catalogue)>,
}

impl Products {
    /// The built-in ones with those of the file.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, known: Mutex::new((None, Catalogue::built_in())) }
    }

    /// The products at this moment. A file that cannot be read is told once for each of its changes, and the
    /// products that were known before stay.
    pub(crate) fn now(&self) -> Catalogue {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file {
            // A ConfigMap is changed by moving a link, which the file's own time tells.
            let changed = std::fs::metadata(file).and_then(|about| about.modified());
            let changed = changed.unwrap_or(SystemTime::UNIX_EPOCH);
            if known.0 != Some(changed) {
                known.0 = Some(changed);
                if let Some(all) = read(file) {
                    known.1 = all;
                }
            }
        }
        known.1.clone()
    }
}

fn read(file: &Path) -> Option<Catalogue> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let name = file.display();
    match text.and_then(|text| Catalogue::read(&text).map_err(|error| error.to_string())) {
        Ok(own) => {
            info!(file = %name, products = own.products.len(), "read the catalogue of GPUs");
            Some(Catalogue::built_in().with(own))
        }
        Err(error) => {
            warn!(file = %name, error, "cannot use the catalogue of GPUs");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::{Duration, SystemTime};

    use super::Products;

    const OWN: &str = r#"{"products": [{"name": "Own", "labels": [], "memoryMib": 9000,
        "bf16Tflops": 50, "instances": {}}]}"#;

    /// What is read is kept until the file changes, also where it then cannot be read.
    #[test]
    fn a_file_is_read_again_once_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gpus.json");
        let products = Products::new(Some(file.clone()));
        let has = |name: &str| products.now().products.iter().any(|one| one.name == name);
        assert!(has("NVIDIA L4") && !has("Own"));
        let write = |text: &str, seconds: u64| {
            std::fs::write(&file, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let written = std::fs::File::options().write(true).open(&file).unwrap();
            written.set_modified(at).unwrap();
        };
        write(OWN, 1000);
        assert!(has("NVIDIA L4") && has("Own"));
        write("{", 1000);
        assert!(has("Own"), "it was read again without a change");
        write("{", 2000);
        assert!(has("Own"), "a broken file took away what was known");
        write(&OWN.replacen("Own", "Other", 1), 3000);
        assert!(has("Other") && !has("Own"));
    }
}
