//! How programs become an image: files at any place, and what is started by whom.
//!
//! As with other images, equal files give an equal digest: times, owners and modes are fixed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::image::{Image, ImageError, assemble, layer, metadata};
use crate::tar_stream::{self, Content, Entry};

/// Everybody may read, write and enter, and remove what is theirs.
const SHARED: u32 = 0o1777;

/// Something at its place in an image.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Absolute, such as `/usr/local/bin/trainer`.
    pub path: String,
    pub what: What,
}

/// What is at a place.
#[derive(Clone, Debug)]
pub enum What {
    /// A copy of a file that everybody may read.
    File(PathBuf),
    /// A copy of a file that everybody may read and run. Links are followed.
    Program(PathBuf),
    Text(&'static str),
    /// A folder such as `/tmp`.
    SharedFolder,
}

/// What container runtimes start, and how.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// Number of user and group, as `user:group`.
    pub user: String,
    /// As `NAME=value`.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
}

/// The image of a program. Each of `layers` becomes one, so that what changes seldom is moved seldom.
pub fn program_image(layers: &[Vec<Placed>], execution: Execution) -> Result<Image, ImageError> {
    let layers = layers.iter().map(|placed| {
        let entries = placed.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        layer(entries)
    });
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    Ok(assemble(layers, BTreeMap::new(), Some(execution)))
}

fn entry(placed: &Placed) -> Result<Entry, ImageError> {
    let path = placed.path.trim_start_matches('/').to_owned();
    let file = |source: &PathBuf| {
        let size = metadata(source)?.len();
        Ok::<_, ImageError>(Content::File { path: source.clone(), size })
    };
    Ok(match &placed.what {
        What::File(source) => Entry { path, mode: tar_stream::FILE, content: file(source)? },
        What::Program(source) => Entry { path, mode: tar_stream::FOLDER, content: file(source)? },
        What::Text(text) => Entry { path, mode: tar_stream::FILE, content: Content::Text(text) },
        What::SharedFolder => {
            Entry { path: format!("{path}/"), mode: SHARED, content: Content::Folder }
        }
    })
}
