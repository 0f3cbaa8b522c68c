//! The same calls for programs without an async runtime. They must not be made from within one.

use std::future::Future;
use std::path::Path;

use crate::error::Error;
use crate::image::Image;
use crate::options::Options;
use crate::pull::{self, PullOptions, Pulled};
use crate::push::{self, Pushed};
use crate::reference::Target;
use crate::remove;

/// See [`push::push`].
pub fn push(image: &Image, target: &Target, options: &Options) -> Result<Pushed, Error> {
    wait(push::push(image, target, options))
}

/// See [`push::check_push`].
pub fn check_push(target: &Target, options: &Options) -> Result<(), Error> {
    wait(push::check_push(target, options))
}

/// See [`pull::pull`].
pub fn pull(
    target: &Target,
    folder: &Path,
    what: &PullOptions,
    options: &Options,
) -> Result<Pulled, Error> {
    wait(pull::pull(target, folder, what, options))
}

/// See [`pull::resolve`].
pub fn resolve(target: &Target, options: &Options) -> Result<String, Error> {
    wait(pull::resolve(target, options))
}

/// See [`remove::remove`].
pub fn remove(target: &Target, digest: &str, options: &Options) -> Result<(), Error> {
    wait(remove::remove(target, digest, options))
}

fn wait<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Runtime { source })?.block_on(work)
}
