//! Where the images of a workspace are mounted in the pod, and what of them is meant.

use std::path::{Path, PathBuf};

use api::Workspace;
use api::run_spec::BaseModel;
use api::valid::{DataSource, HeldOut, ModelSource};
use plan::Sources;

/// Folder of all mounts.
const ROOT: &str = "/mnt";

/// The sources of a workspace, as the operator mounts them.
pub(super) fn sources(workspace: &Workspace) -> Sources {
    let root = Path::new(ROOT);
    let data = |name: &str, source: &DataSource| match source {
        DataSource::Paths(paths) => paths.clone(),
        DataSource::Image(_) => vec![root.join(name).join("data")],
    };
    let held_out = |name: &str, held_out: &HeldOut| match held_out {
        HeldOut::None | HeldOut::Fraction(_) => Vec::new(),
        HeldOut::Source(source) => data(name, source),
    };
    Sources {
        base_model: base_model(root, &workspace.base_model),
        train: data("train", &workspace.data.train),
        validation: held_out("validation", &workspace.data.validation),
        test: held_out("test", &workspace.data.test),
        output_dir: PathBuf::from("/work/run"),
    }
}

fn base_model(root: &Path, source: &ModelSource) -> BaseModel {
    match source {
        ModelSource::Image(image) => BaseModel {
            path: model_in(&root.join("base-model")),
            reference: image.to_string(),
            digest: image.digest.clone(),
        },
        ModelSource::Path(path) => {
            BaseModel { path: path.clone(), reference: path.display().to_string(), digest: None }
        }
        // The operator does not let these through.
        ModelSource::HuggingFace(repository) => BaseModel {
            path: root.join("base-model"),
            reference: repository.to_string(),
            digest: None,
        },
    }
}

/// `/models` or `/data` of the image; in it the folder itself, or the one folder or GGUF file there is.
fn model_in(mount: &Path) -> PathBuf {
    let folders = ["models", "data"].map(|name| mount.join(name));
    let folder = folders.iter().find(|folder| folder.is_dir()).unwrap_or(&folders[0]);
    if folder.join("config.json").is_file() {
        return folder.clone();
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    match entries.as_slice() {
        [one] if one.is_dir() || one.extension().is_some_and(|ending| ending == "gguf") => {
            one.clone()
        }
        _ => folder.clone(),
    }
}
