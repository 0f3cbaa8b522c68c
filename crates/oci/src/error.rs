//! Everything that can go wrong here, what kind of trouble it is, and what to do about it.

use std::io;

use thiserror::Error;

use crate::credentials::CredentialError;
use crate::image::ImageError;
use crate::layout::LayoutError;
use crate::pull::PullError;
use crate::reference::ReferenceError;
use crate::registry::{EXPIRED, RegistryError, WRONG_NAME, ca_variable};
use crate::untar::UntarError;

/// Everything that can go wrong here.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Untar(#[from] UntarError),
    /// The machine gave no means to wait for the network.
    #[error("cannot start to talk to a registry")]
    Runtime { source: io::Error },
}

/// An error with its causes, each text once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Kinds of trouble, by who can end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What the user named or gave is wrong.
    Input,
    /// A registry or a credential was refused; trying again does not help.
    Refused,
    /// Disk or network; it may pass.
    MayPass,
}

impl Error {
    /// What kind of trouble this is.
    pub fn class(&self) -> Class {
        use RegistryError as R;
        match self {
            Self::Reference(_) | Self::Image(_) | Self::Untar(_) => match self.disk_fault() {
                Some(_) => Class::MayPass,
                None => Class::Input,
            },
            Self::Layout(LayoutError::Io { .. })
            | Self::Pull(PullError::Io { .. })
            | Self::Registry(
                R::Unreachable { .. } | R::Busy { .. } | R::Source { .. } | R::Disk { .. },
            )
            | Self::Runtime { .. } => Class::MayPass,
            Self::Registry(
                R::Refused { .. } | R::Credential(_) | R::Certificate { .. } | R::Answer { .. },
            ) => Class::Refused,
            Self::Layout(_)
            | Self::Pull(_)
            | Self::Registry(
                R::NotFound { .. } | R::CaFile { .. } | R::Manifest { .. } | R::Digest { .. },
            ) => Class::Input,
        }
    }

    fn disk_fault(&self) -> Option<&io::Error> {
        match self {
            Self::Image(ImageError::Read { source, .. })
            | Self::Layout(LayoutError::Io { source, .. })
            | Self::Pull(PullError::Io { source, .. })
            | Self::Untar(UntarError::Io { source, .. })
            | Self::Registry(RegistryError::Disk { source, .. })
            | Self::Runtime { source } => Some(source),
            _ => None,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        if let Some(source) = self.disk_fault() {
            return disk_hint(source.kind());
        }
        match self {
            Self::Registry(error) => registry_hint(error),
            Self::Image(ImageError::NoAdapter { missing, .. }) => Some(format!(
                "an adapter in PEFT's format has `adapter_config.json` and \
                 `adapter_model.safetensors`; {missing} is written by `anneal run`, or by PEFT's \
                 `save_pretrained`"
            )),
            Self::Layout(LayoutError::Digest { .. } | LayoutError::Damaged { .. })
            | Self::Pull(PullError::Digest { .. }) => {
                Some("the stored image is damaged: push it again from its source".to_owned())
            }
            Self::Layout(LayoutError::NotALayout { .. }) => Some(
                "name a folder that `anneal push` wrote, or the folder `image` of a run".to_owned(),
            ),
            Self::Image(ImageError::Empty { .. }) => {
                Some("name a folder with files in it, or one file".to_owned())
            }
            Self::Layout(LayoutError::Occupied { .. }) => {
                Some("name a new folder, or one that is empty".to_owned())
            }
            Self::Layout(LayoutError::DigestAsName { .. }) => {
                Some("write `oci:PATH:tag`".to_owned())
            }
            Self::Pull(PullError::Occupied { .. }) => {
                Some("name a new folder, or remove this one first".to_owned())
            }
            Self::Pull(PullError::NothingThere { .. } | PullError::MediaType { .. }) => Some(
                "adapters and data are read from /data of an image, models from /models or /data"
                    .to_owned(),
            ),
            Self::Untar(UntarError::Kind { .. }) => {
                Some("build the image with copies of the files in place of links".to_owned())
            }
            _ => None,
        }
    }
}

fn disk_hint(kind: io::ErrorKind) -> Option<String> {
    let text = match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space and run the same command again; what is there already is kept"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "name a folder that you may write to"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
        _ => return None,
    };
    Some(text.to_owned())
}

fn registry_hint(error: &RegistryError) -> Option<String> {
    use RegistryError as R;
    Some(match error {
        R::Refused { request, credential: None, .. } => format!(
            "no credential for {0} was found: log in with `docker login {0}`, or point \
             DOCKER_CONFIG to the folder of a `config.json` that has one",
            request.registry
        ),
        R::Refused { request, credential: Some(config), .. } => format!(
            "the credential in {} was sent: check that it is right and may be used for this \
             repository, or log in again with `docker login {}`",
            config.display(),
            request.registry
        ),
        R::Credential(CredentialError::Helper { .. }) => {
            "see that the helper runs by itself, or remove it from the file".to_owned()
        }
        R::Credential(CredentialError::Config { .. } | CredentialError::Malformed { .. }) => {
            "log in again with `docker login`, or correct the file".to_owned()
        }
        R::NotFound { .. } => {
            "check the name and the tag; some registries want a repository to be created first"
                .to_owned()
        }
        R::Unreachable { .. } => {
            "check the name and the network, then run the same command again; what was \
             transferred is kept"
                .to_owned()
        }
        R::Busy { .. } => {
            "run the same command again later; what was transferred is kept".to_owned()
        }
        R::Certificate { reason, .. } if reason == WRONG_NAME => {
            "write the registry's name as its certificate has it".to_owned()
        }
        R::Certificate { reason, .. } if reason == EXPIRED => {
            "the registry needs a new certificate; check the clock of this machine as well"
                .to_owned()
        }
        R::Certificate { .. } => {
            let named = "name the file of your authority's certificate with `--ca-file`";
            match ca_variable() {
                Some(path) => format!(
                    "{named}; the one in SSL_CERT_FILE, {}, does not vouch for this registry",
                    path.display()
                ),
                None => format!("{named} or in SSL_CERT_FILE"),
            }
        }
        R::Digest { .. } => {
            "what the registry holds is damaged: push the image again from its source".to_owned()
        }
        R::CaFile { .. } => "name a file of certificates in PEM".to_owned(),
        R::Answer { .. } | R::Manifest { .. } | R::Source { .. } | R::Disk { .. } => return None,
    })
}
