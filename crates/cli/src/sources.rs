//! From what a user names to files on this machine: paths, OCI images, repositories of the Hugging
//! Face hub. What is fetched is kept in the cache and named by what it is, so that it is fetched once.

mod adapter;
mod registry;

use std::path::{Path, PathBuf};

use api::Fault;
use api::names::{HubRepository, ImageReference};
use api::run_spec::BaseModel;
use api::valid::{DataSource, HeldOut, ModelSource, Workspace};
use oci::Root;

pub(crate) use adapter::{LocalAdapter, adapter, find_in as find_adapter};
pub(crate) use registry::{cache, failure as registry_failure, options as registry_options};

use crate::args::RegistryArgs;
use crate::failure::Failure;

/// What a model's folder has, and no folder of models.
const CONFIG: &str = "config.json";

/// A base model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalModel {
    /// A Hugging Face folder or a GGUF file.
    pub(crate) path: PathBuf,
    /// What the user named, pinned.
    pub(crate) reference: String,
    /// Digest of the image or commit of the repository.
    pub(crate) digest: Option<String>,
}

/// Files and folders of each split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalData {
    pub(crate) train: Vec<PathBuf>,
    pub(crate) validation: Vec<PathBuf>,
    pub(crate) test: Vec<PathBuf>,
}

/// Told what is being fetched, and how far it is.
pub(crate) type Tell<'a> = &'a dyn Fn(&str, u64, u64);

/// Fetches the base model of a workspace.
pub(crate) fn model(
    source: &ModelSource,
    registry: &RegistryArgs,
    tell: Tell<'_>,
) -> Result<LocalModel, Failure> {
    match source {
        ModelSource::Path(path) => Ok(LocalModel {
            path: path.clone(),
            reference: path.display().to_string(),
            digest: None,
        }),
        ModelSource::Image(image) => image_model(&image.to_string(), registry, tell),
        ModelSource::HuggingFace(repository) => hub_model(repository, tell),
    }
}

/// Fetches the base model that a server names. What it holds has been checked.
pub(crate) fn server_model(
    source: &api::workspace::ModelSource,
    registry: &RegistryArgs,
    tell: Tell<'_>,
) -> Result<LocalModel, Failure> {
    if let Some(image) = &source.image {
        return image_model(image, registry, tell);
    }
    if let Some(hub) = &source.hugging_face {
        let revision = hub.revision.as_deref().unwrap_or("main");
        let repository = HubRepository::parse(&hub.repo, revision)
            .map_err(|error| Failure::configuration(error.message).with_hint(error.hint))?;
        return hub_model(&repository, tell);
    }
    let path = source.path.clone().unwrap_or_default();
    model(&ModelSource::Path(path.into()), registry, tell)
}

/// Fetches the base model that is named on the command line.
pub(crate) fn named_model(
    name: &str,
    registry: &RegistryArgs,
    tell: Tell<'_>,
) -> Result<LocalModel, Failure> {
    if let Some(rest) = name.strip_prefix("hf:") {
        let (id, revision) = rest.rsplit_once('@').unwrap_or((rest, "main"));
        let repository = HubRepository::parse(id, revision)
            .map_err(|error| Failure::configuration(error.message).with_hint(error.hint))?;
        return hub_model(&repository, tell);
    }
    let path = Path::new(name);
    if path.exists() || !is_image(name) {
        // An image that is mounted holds the model below one of these.
        let inner = [Root::Models, Root::Data].map(|root| path.join(root.name()));
        let mounted = !path.join(CONFIG).is_file() && inner.iter().any(|folder| folder.is_dir());
        let path = if mounted { lm::files::in_mount(path) } else { path.to_owned() };
        return model(&ModelSource::Path(path), registry, tell);
    }
    image_model(name, registry, tell)
}

fn hub_model(repository: &HubRepository, tell: Tell<'_>) -> Result<LocalModel, Failure> {
    let fetched = trainer_image::hub::fetch(repository, tell);
    let BaseModel { path, reference, digest } =
        fetched.map_err(|error| Failure::new(error.class, error.message).with_hint(error.hint))?;
    Ok(LocalModel { path, reference, digest })
}

/// Whether a text that is no path here names an image: `oci:…`, or a registry's host first.
fn is_image(name: &str) -> bool {
    let host = name.split('/').next().unwrap_or_default();
    let has_host = name.contains('/') && (host.contains('.') || host.contains(':'));
    name.starts_with("oci:")
        || (has_host && !host.starts_with('.') && ImageReference::parse(name).is_ok())
}

fn image_model(name: &str, registry: &RegistryArgs, tell: Tell<'_>) -> Result<LocalModel, Failure> {
    let pulled = registry::pull(name, Root::Models, registry, tell)?;
    let path = lm::files::in_folder(&pulled.folder);
    Ok(LocalModel { path, reference: name.to_owned(), digest: Some(pulled.digest) })
}

/// Fetches the data of a workspace. Every path that is missing is a fault of its own.
pub(crate) fn data(
    workspace: &Workspace,
    registry: &RegistryArgs,
    tell: Tell<'_>,
) -> Result<LocalData, Failure> {
    let data = &workspace.data;
    let mut faults = Vec::new();
    let mut fetch = |field: &str, source: &DataSource| -> Result<_, Failure> {
        match source {
            DataSource::Paths(paths) => {
                faults.extend(
                    paths.iter().filter(|path| !path.exists()).map(|path| missing(field, path)),
                );
                Ok(paths.clone())
            }
            DataSource::Image(image) => {
                let pulled = registry::pull(&image.to_string(), Root::Data, registry, tell)?;
                Ok(vec![pulled.folder])
            }
        }
    };
    let train = fetch("spec.data.train", &data.train)?;
    let mut held_out = |field: &str, held_out: &HeldOut| match held_out {
        HeldOut::None | HeldOut::Fraction(_) => Ok(Vec::new()),
        HeldOut::Source(source) => fetch(field, source),
    };
    let validation = held_out("spec.data.validation", &data.validation)?;
    let test = held_out("spec.data.test", &data.test)?;
    if faults.is_empty() {
        return Ok(LocalData { train, validation, test });
    }
    Err(Failure::faults("the data", faults, 0))
}

fn missing(field: &str, path: &Path) -> Fault {
    Fault {
        field: Some(field.to_owned()),
        message: format!("there is no file or folder `{}`", path.display()),
        hint: Some("paths are relative to the folder that anneal is started in".to_owned()),
        ..Fault::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_paths() {
        for image in ["oci:./images:v1", "registry.example.com/a/b:1", "localhost:5000/a"] {
            assert!(is_image(image), "{image}");
        }
        for path in ["models/a", "./a.b/c", "../x.y/z", "model.gguf", "/a/b.c"] {
            assert!(!is_image(path), "{path}");
        }
    }
}
