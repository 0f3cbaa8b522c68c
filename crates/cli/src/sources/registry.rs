//! Images, by way of crate `oci`: options from the command line, errors for people, and a cache.

use std::path::PathBuf;

use oci::{Options, PullOptions, Pulled, Root, Target};

use super::Tell;
use crate::args::RegistryArgs;
use crate::failure::Failure;

/// What the command line says about registries.
pub(crate) fn options(args: &RegistryArgs) -> Options {
    Options { ca_file: args.ca_file.clone(), plain_http: args.plain_http, ..Options::default() }
}

/// Pulls an image into the cache, where it is named by its digest.
pub(super) fn pull(
    name: &str,
    first: Root,
    args: &RegistryArgs,
    tell: Tell<'_>,
) -> Result<Pulled, Failure> {
    let fail = |error: oci::Error| failure(&error);
    let target: Target = name.parse().map_err(|error| failure(&oci::Error::Reference(error)))?;
    let options = options(args);
    tell(name, 0, 0);
    let digest = oci::blocking::resolve(&target, &options).map_err(fail)?;
    let folder = cache()?.join("images").join(digest.replace(':', "-"));
    let what = PullOptions { first, ..PullOptions::default() };
    oci::blocking::pull(&target.at_digest(&digest), &folder, &what, &options).map_err(fail)
}

/// The folder that downloads are kept in.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    trainer_image::cache().ok_or_else(|| {
        Failure::configuration("there is no folder to keep downloads in")
            .with_hint("set ANNEAL_CACHE to a folder")
    })
}

/// The failure for a person and for the exit code.
pub(crate) fn failure(error: &oci::Error) -> Failure {
    let failure = Failure::of(trainer_image::class(error), error);
    Failure { hint: error.hint(), ..failure }
}
