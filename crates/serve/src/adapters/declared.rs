//! What declares adapters: a file that is read again and again while the server runs, or the same told by a
//! controller. Of two declarations the one with the higher number counts.
//!
//! ```yaml
//! sequence: 1
//! adapters:
//!   - name: reviews
//!     image: registry.example.com/team/reviews:v1
//!     dockerConfig: /run/logins/team # a folder with Docker's config.json
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// All adapters that are declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    pub sequence: u64,
    pub adapters: Vec<Declared>,
}

/// One adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub source: Source,
    /// Folder of the `config.json` with the login of its registry, where that is not the server's own.
    pub docker_config: Option<PathBuf>,
}

/// Where an adapter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image, by tag or digest, in a registry or a layout folder.
    Image(String),
    /// A folder on this machine.
    Folder(PathBuf),
}

impl Source {
    /// As it was written.
    pub fn text(&self) -> String {
        match self {
            Self::Image(image) => image.clone(),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }
}

/// A file that declares adapters, and what reads it.
#[derive(Clone, Debug)]
pub struct Declaration {
    pub path: PathBuf,
    pub read: Reader,
}

/// Reads a file of adapters; the text is a name that no adapter may have.
pub type Reader = fn(&Path, &str) -> Result<Declarations, DeclaredError>;

impl From<PathBuf> for Declaration {
    /// A file that holds adapters and nothing else.
    fn from(path: PathBuf) -> Self {
        Self { path, read }
    }
}

/// Why a file of adapters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclaredError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot understand {}: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("cannot understand what is told of adapters: {reason}")]
    Told { reason: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    adapters: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Row {
    name: String,
    image: Option<String>,
    path: Option<PathBuf>,
    docker_config: Option<PathBuf>,
}

/// Reads the file; `base` is a name that no adapter may have.
pub fn read(path: &Path, base: &str) -> Result<Declarations, DeclaredError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DeclaredError::Read { path: path.to_owned(), source })?;
    parse(&text, base).map_err(|reason| DeclaredError::Format { path: path.to_owned(), reason })
}

/// Reads what a controller tells, in JSON or YAML.
pub fn told(text: &str, base: &str) -> Result<Declarations, DeclaredError> {
    parse(text, base).map_err(|reason| DeclaredError::Told { reason })
}

fn parse(text: &str, base: &str) -> Result<Declarations, String> {
    let file: File = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let mut names = BTreeSet::from([base.to_owned()]);
    let mut adapters = Vec::new();
    for Row { name, image, path, docker_config } in file.adapters {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
        if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
            return Err(format!("`{name}` is no name: letters, digits and -_.:/ make one"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("the name `{name}` is taken"));
        }
        let source = match (image, path) {
            (Some(image), None) => Source::Image(image),
            (None, Some(path)) => Source::Folder(path),
            _ => return Err(format!("`{name}` needs either `image` or `path`")),
        };
        adapters.push(Declared { name, source, docker_config });
    }
    Ok(Declarations { sequence: file.sequence, adapters })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parsed(text: &str) -> Result<Declarations, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapters.yaml");
        std::fs::write(&path, text).unwrap();
        let place = format!("{}: ", path.display());
        read(&path, "base").map_err(|error| error.to_string().replace(&place, ""))
    }

    #[test]
    fn images_and_folders_are_declared() {
        let text = "sequence: 3\nadapters:\n- {name: a, image: 'r.example.com/x:1', dockerConfig: /l}\n\
                    - {name: b/c, path: x}\n";
        let Declarations { sequence, adapters: all } = parsed(text).unwrap();
        assert_eq!((sequence, &all[0].docker_config), (3, &Some("/l".into())));
        assert_eq!(all[0].source, Source::Image("r.example.com/x:1".to_owned()));
        assert_eq!(all[1].source, Source::Folder("x".into()));
        assert_eq!(parsed("adapters: []").unwrap(), Declarations::default());
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("adapters:\n- {name: a, image: x, path: y}", "needs either `image` or `path`"),
            ("adapters:\n- {name: base, image: x}", "the name `base` is taken"),
            ("adapters:\n- {name: a, image: x}\n- {name: a, image: y}", "`a` is taken"),
            ("adapters:\n- {name: 'a b', image: x}", "`a b` is no name"),
            ("adapters:\n- {name: a, image: x, digest: y}", "unknown field `digest`"),
            ("adapters: 3", "invalid type"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
