//! What a user may name: an image in a registry, or in an OCI layout folder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_distribution::{ParseError, Reference};
use thiserror::Error;

use crate::digest::hex_part;

const DIGEST: &str = "a digest is `sha256:` and 64 lower-case hexadecimal digits";

/// Used where a user names none.
pub const DEFAULT_TAG: &str = "latest";

/// Where an image is, or shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `registry/repository:tag` or `registry/repository@sha256:…`.
    Registry(Reference),
    /// `oci:PATH[:tag]` or `oci:PATH@sha256:…`.
    Layout { path: PathBuf, name: Name },
}

/// Which image of a layout folder is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The only image there is, or else the one tagged `latest`.
    Unnamed,
    Tag(String),
    Digest(String),
}

/// Why a text names no image.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct ReferenceError {
    /// What the user wrote.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Target {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fault = |reason| ReferenceError { text: text.to_owned(), reason };
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(fault(match scheme {
                "oci" => "a registry is named without `oci://`, a layout folder as `oci:PATH`",
                _ => "a registry is named without a scheme such as `https://`",
            }));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            return layout(rest).map_err(fault);
        }
        let parsed = text.parse();
        let reference: Reference = parsed.map_err(|e| fault(registry_fault(text, &e)))?;
        match reference.digest() {
            Some(digest) if hex_part(digest).is_none() => Err(fault(DIGEST)),
            _ => Ok(Self::Registry(reference)),
        }
    }
}

fn registry_fault(text: &str, error: &ParseError) -> &'static str {
    const LOWER_CASE: &str = "a repository has lower-case letters only";
    match error {
        ParseError::NameContainsUppercase => LOWER_CASE,
        ParseError::ReferenceInvalidFormat if has_bad_digest(text) => DIGEST,
        ParseError::ReferenceInvalidFormat if text.to_lowercase().parse::<Reference>().is_ok() => {
            LOWER_CASE
        }
        ParseError::NameEmpty => "the repository is missing",
        ParseError::NameTooLong => "the repository is longer than 255 characters",
        ParseError::TagInvalidFormat => "the tag is malformed",
        ParseError::DigestInvalidFormat
        | ParseError::DigestInvalidLength
        | ParseError::DigestUnsupported => DIGEST,
        ParseError::ReferenceInvalidFormat => {
            "expected `registry/repository:tag`, `registry/repository@sha256:…` or `oci:PATH:tag`"
        }
    }
}

fn has_bad_digest(text: &str) -> bool {
    text.split_once('@').is_some_and(|(_, digest)| hex_part(digest).is_none())
}

fn layout(rest: &str) -> Result<Target, &'static str> {
    let (path, name) = if let Some((path, digest)) = rest.split_once('@') {
        hex_part(digest).ok_or(DIGEST)?;
        (path, Name::Digest(digest.to_owned()))
    } else {
        match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => {
                if !is_tag(tag) {
                    return Err("the tag is malformed");
                }
                (path, Name::Tag(tag.to_owned()))
            }
            _ => (rest, Name::Unnamed),
        }
    };
    if path.is_empty() {
        return Err("the path of the layout folder is missing");
    }
    Ok(Target::Layout { path: path.into(), name })
}

/// A tag as the distribution specification defines it.
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

impl Target {
    /// An image of the layout folder at this path.
    pub fn layout(path: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self::Layout { path: path.into(), name: Name::Tag(tag.into()) }
    }

    /// The digest, where the reference names one.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Registry(reference) => reference.digest(),
            Self::Layout { name: Name::Digest(digest), .. } => Some(digest),
            Self::Layout { name: Name::Unnamed | Name::Tag(_), .. } => None,
        }
    }

    /// The same place, addressed by digest.
    #[must_use]
    pub fn at_digest(&self, digest: &str) -> Self {
        match self {
            Self::Registry(reference) => {
                Self::Registry(reference.clone_with_digest(digest.to_owned()))
            }
            Self::Layout { path, .. } => {
                Self::Layout { path: path.clone(), name: Name::Digest(digest.to_owned()) }
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{reference}"),
            Self::Layout { path, name } => {
                write!(f, "oci:{}", path.display())?;
                match name {
                    Name::Unnamed => Ok(()),
                    Name::Tag(tag) => write!(f, ":{tag}"),
                    Name::Digest(digest) => write!(f, "@{digest}"),
                }
            }
        }
    }
}
