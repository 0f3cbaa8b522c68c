//! Takes an image out of a registry.

use crate::error::Error;
use crate::options::Options;
use crate::reference::{ReferenceError, Target};
use crate::registry::{Connection, Operation};
use crate::retry::retry;

/// Removes the image of this digest from the target's repository, with all tags that it has. What is
/// gone already is no error; many registries refuse to delete, which is one.
pub async fn remove(target: &Target, digest: &str, options: &Options) -> Result<(), Error> {
    let Target::Registry(reference) = target else {
        let reason = "images are removed from registries only";
        return Err(ReferenceError { text: target.to_string(), reason }.into());
    };
    let removed = retry(options, async || {
        Connection::open(reference, Operation::Push, options).await?.delete(digest).await
    });
    Ok(removed.await?)
}
