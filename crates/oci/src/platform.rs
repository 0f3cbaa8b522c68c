//! Which image of an index of several platforms is taken.

use crate::manifest::{Descriptor, Index};

/// This machine's platform if it is there, else the first that is an image at all: what is read
/// here are weights and data, which are the same for each.
pub(crate) fn choose(index: &Index) -> Option<&Descriptor> {
    let architecture = own();
    let fits = |d: &&Descriptor| {
        d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
    };
    // Builders store provenance as an image of the platform `unknown`.
    let is_image = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os != "unknown");
    index.manifests.iter().find(fits).or_else(|| index.manifests.iter().find(is_image))
}

/// This machine's architecture, by the name that images have for it.
pub(crate) fn own() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
