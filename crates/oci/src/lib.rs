//! OCI images of adapters, models and data: made, stored in a layout folder or a registry, and read.
//!
//! This crate knows nothing of workspaces or training. Read in this order: [`reference`] (what a
//! user may name), [`image`] (how folders become an image), [`layout`] (images in a folder),
//! [`registry`], [`push`] and [`pull`] (images in a registry), [`untar`] (what of a foreign image
//! is let onto the disk).
//!
//! ```no_run
//! # fn main() -> Result<(), oci::Error> {
//! let image = oci::adapter_image("run/adapter".as_ref(), &Default::default())?;
//! let target: oci::Target = "registry.example.org/team/adapter:v1".parse()?;
//! let pushed = oci::blocking::push(&image, &target, &oci::Options::default())?;
//! println!("{}", pushed.digest);
//! # Ok(())
//! # }
//! ```

pub mod blocking;
pub mod credentials;
mod digest;
mod error;
pub mod image;
pub mod layout;
mod manifest;
mod options;
mod platform;
pub mod program;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod remove;
mod retry;
mod tar_stream;
pub mod untar;

pub use digest::sha256;
pub use error::{Class, Error, with_causes};
pub use image::{Blob, Folder, Image, adapter_image, image_from_dirs};
pub use options::{Event, Options};
pub use program::{Execution, Placed, What, program_image};
pub use pull::{PullOptions, Pulled, Root};
pub use push::Pushed;
pub use reference::Target;
