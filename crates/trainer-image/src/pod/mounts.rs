//! Where the images of a workspace are mounted in the pod, and what of them is meant.

use std::path::{Path, PathBuf};

use api::Workspace;
use api::names::HubRepository;
use api::run_spec::BaseModel;
use api::valid::{DataSource, HeldOut, ModelSource};
use plan::Sources;
use train::ExitClass;

use super::Ended;
use super::progress::Progress;
use crate::hub;

/// Folder of all mounts.
const ROOT: &str = "/mnt";

/// Folder that the run's own is in, where the environment names none.
const WORK: &str = "/work";

/// The sources of a workspace, as the operator mounts them; what is no image is fetched.
pub(super) fn sources(workspace: &Workspace, progress: &Progress) -> Result<Sources, Ended> {
    let root = Path::new(ROOT);
    let data = |name: &str, source: &DataSource| match source {
        DataSource::Paths(paths) => paths.clone(),
        DataSource::Image(_) => vec![root.join(name).join("data")],
    };
    let held_out = |name: &str, held_out: &HeldOut| match held_out {
        HeldOut::None | HeldOut::Fraction(_) => Vec::new(),
        HeldOut::Source(source) => data(name, source),
    };
    let work = std::env::var_os("ANNEAL_WORK").map_or_else(|| WORK.into(), PathBuf::from);
    Ok(Sources {
        base_model: base_model(root, &workspace.base_model, progress)?,
        train: data("train", &workspace.data.train),
        validation: held_out("validation", &workspace.data.validation),
        test: held_out("test", &workspace.data.test),
        output_dir: work.join("run"),
    })
}

fn base_model(root: &Path, source: &ModelSource, progress: &Progress) -> Result<BaseModel, Ended> {
    Ok(match source {
        ModelSource::Image(image) => BaseModel {
            path: lm::files::in_mount(&root.join("base-model")),
            reference: image.to_string(),
            digest: image.digest.clone(),
        },
        ModelSource::Path(path) => {
            BaseModel { path: path.clone(), reference: path.display().to_string(), digest: None }
        }
        ModelSource::HuggingFace(repository) => fetch(repository, progress)?,
    })
}

/// Fetches a repository at the commit that preflight found, where the operator names it.
fn fetch(repository: &HubRepository, progress: &Progress) -> Result<BaseModel, Ended> {
    let mut repository = repository.clone();
    if let Ok(commit) = std::env::var("ANNEAL_HUB_REVISION") {
        repository.revision = commit;
    }
    tracing::info!(%repository, "fetching the base model");
    let fetched = hub::fetch(&repository, &|_, _, _| progress.is_at_work());
    fetched.map_err(|error| {
        let hint = match error.class {
            ExitClass::Refused => {
                "name a secret with a token that may read it in \
                 spec.baseModel.huggingFace.tokenSecret, and accept the model's terms on its page"
            }
            ExitClass::Io => "check whether the cluster reaches the hub, or use an image",
            _ => error.hint,
        };
        Ended::new(error.class, &error, Some(hint.to_owned()))
    })
}
