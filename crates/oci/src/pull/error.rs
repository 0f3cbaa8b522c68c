//! What can go wrong between an image and the folder that it is brought into.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong between an image and the folder that it is brought into.
#[derive(Debug, Error)]
pub enum PullError {
    /// The layers are no archives of files.
    #[error("{reference} holds no files: the media type of its first blob is `{found}`")]
    MediaType { reference: String, found: String },
    /// The folders that are looked for are not in the image.
    #[error("{reference} has no files under /data or /models")]
    NothingThere { reference: String },
    /// The configuration does not fit the image.
    #[error("the configuration of {reference} is not that of an image: {reason}")]
    Config { reference: String, reason: String },
    /// What came differs from what was announced.
    #[error("{what} has the digest {actual} and not {expected}")]
    Digest { what: String, expected: String, actual: String },
    /// The folder is in use for something else.
    #[error("{folder} is not empty and was not made by a pull")]
    Occupied { folder: PathBuf },
    /// The disk refused.
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}
