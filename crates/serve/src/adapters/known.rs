//! What is remembered on disk between two starts: which digest each image stood for, and what its manifest
//! said. The files themselves are beside it, each image in a folder named by its digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

const FILE: &str = "known.json";

/// The last known state of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) digest: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// The cache folder of a server.
#[derive(Clone, Debug)]
pub(super) struct Known {
    folder: PathBuf,
}

impl Known {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where the files of an image are.
    pub(super) fn place(&self, digest: &str) -> PathBuf {
        self.folder.join(digest.replace(':', "-"))
    }

    /// What an image stood for when it was taken up last, if its files are still there.
    pub(super) fn last(&self, image: &str) -> Option<Image> {
        let known = self.read().remove(image)?;
        self.place(&known.digest).join(oci::pull::MARKER).is_file().then_some(known)
    }

    /// Remembers what an image stands for.
    pub(super) fn remember(&self, image: &str, state: Image) -> std::io::Result<()> {
        let mut all = self.read();
        if all.get(image) == Some(&state) {
            return Ok(());
        }
        all.insert(image.to_owned(), state);
        std::fs::create_dir_all(&self.folder)?;
        let new = self.folder.join(format!("{FILE}.new"));
        std::fs::write(&new, serde_json::to_vec_pretty(&all)?)?;
        std::fs::rename(new, self.folder.join(FILE))
    }

    fn read(&self) -> BTreeMap<String, Image> {
        let bytes = std::fs::read(self.folder.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Says that an image is in use now.
    pub(super) fn touch(&self, digest: &str) {
        if let Ok(folder) = std::fs::File::open(self.place(digest)) {
            let _ = folder.set_modified(SystemTime::now());
        }
    }

    /// Removes the longest unused images until at most `limit` bytes are left, but none of `used`.
    pub(super) fn prune(&self, limit: u64, used: &[String]) {
        let mut unused = Vec::new();
        let mut total = 0;
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if !name.starts_with("sha256-") {
                continue;
            }
            let bytes = size(&path);
            total += bytes;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if !used.iter().any(|digest| digest.replace(':', "-") == name) {
                unused.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), bytes, path));
            }
        }
        unused.sort();
        for (_, bytes, path) in unused {
            if total <= limit {
                break;
            }
            if std::fs::remove_dir_all(&path).is_ok() {
                total -= bytes;
            }
        }
    }
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let known = Known::new(folder.path());
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            let place = known.place(&format!("sha256:{name}"));
            std::fs::create_dir(&place).unwrap();
            std::fs::write(place.join("file"), [0; 100]).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(index as u64);
            std::fs::File::open(&place).unwrap().set_modified(time).unwrap();
        }
        known.touch("sha256:b");
        known.prune(250, &["sha256:a".to_owned()]);
        let left = |name: &str| known.place(&format!("sha256:{name}")).exists();
        assert_eq!([left("a"), left("b"), left("c")], [true, true, false]);
    }

    #[test]
    fn an_image_is_known_while_its_files_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let known = Known::new(folder.path());
        let image = Image { digest: "sha256:a".to_owned(), annotations: BTreeMap::new() };
        known.remember("r/x:1", image.clone()).unwrap();
        assert_eq!(known.last("r/x:1"), None);
        std::fs::create_dir(known.place("sha256:a")).unwrap();
        std::fs::write(known.place("sha256:a").join(oci::pull::MARKER), "{}").unwrap();
        assert_eq!(known.last("r/x:1"), Some(image));
        assert_eq!(known.last("r/y:1"), None);
    }
}
