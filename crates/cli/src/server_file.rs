//! A `ModelServer` in a file: what of it a server on this machine takes.

use std::path::{Path, PathBuf};

use api::ModelServer;
use api::model_server::{Engine, ServedAdapter};
use serve::adapters::declared::{Declarations, Declared, DeclaredError, Source};

use crate::failure::Failure;

/// Reads and checks the file, and that this machine can do what it asks for.
pub(crate) fn read(path: &Path) -> Result<ModelServer, Failure> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::configuration(format!("cannot read the model server `{shown}`: {error}"))
            .with_hint("name a YAML file with -f FILE")
    })?;
    let server = api::yaml::load_server(&shown, &text)
        .map_err(|faults| Failure::faults(&shown, faults, 0))?;
    if server.spec.engine == Engine::VLLM {
        return Err(Failure::configuration("engine VLLM answers in a cluster only")
            .with_hint("leave out `engine`: Anneal answers on this machine"));
    }
    Ok(server)
}

/// The adapters that the file declares now. The base model's name is held against them when it is read.
pub(crate) fn declared(path: &Path, _base: &str) -> Result<Declarations, DeclaredError> {
    let server = read(path).map_err(|failure| DeclaredError::Format {
        path: path.to_owned(),
        reason: failure.text().trim_end().to_owned(),
    })?;
    let one = |adapter: &ServedAdapter| Declared {
        name: adapter.name.clone(),
        source: source(adapter),
        docker_config: None,
    };
    let adapters = server.spec.adapters.iter().map(one).collect();
    Ok(Declarations { sequence: 0, adapters })
}

/// Where an adapter is; a workspace's is where `anneal run` leaves it.
pub(crate) fn source(adapter: &ServedAdapter) -> Source {
    match (&adapter.image, &adapter.path, &adapter.workspace) {
        (Some(image), _, _) => Source::Image(image.clone()),
        (None, Some(path), _) => Source::Folder(inner(path.into())),
        (None, None, workspace) => {
            let name = workspace.as_deref().unwrap_or_default();
            Source::Folder(inner(Path::new(".anneal").join(name)))
        }
    }
}

/// A run's folder holds its adapter in a folder of its own.
fn inner(folder: PathBuf) -> PathBuf {
    if folder.join(lm::peft::ADAPTER_CONFIG).is_file() {
        return folder;
    }
    let inner = folder.join("adapter");
    if inner.is_dir() { inner } else { folder }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn adapters_of_all_three_kinds_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        std::fs::create_dir_all(run.join("adapter")).unwrap();
        let file = folder.path().join("s.yaml");
        let text = format!(
            "apiVersion: anneal.dev/v1alpha1\nkind: ModelServer\nmetadata: {{name: m}}\nspec:\n  \
             baseModel: {{path: m}}\n  adapters:\n  - {{name: a, image: 'r.example.com/x:1'}}\n  \
             - {{name: b, path: '{}'}}\n  - {{name: c, workspace: w}}\n",
            run.display()
        );
        std::fs::write(&file, text).unwrap();
        let adapters = declared(&file, "m").unwrap().adapters;
        let all: Vec<Source> = adapters.into_iter().map(|adapter| adapter.source).collect();
        let expected = [
            Source::Image("r.example.com/x:1".to_owned()),
            Source::Folder(run.join("adapter")),
            Source::Folder(".anneal/w".into()),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn an_engine_of_a_cluster_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.yaml");
        let text = "apiVersion: anneal.dev/v1alpha1\nkind: ModelServer\nmetadata: {name: m}\nspec:\n  \
                    baseModel: {path: m}\n  engine: VLLM\n";
        std::fs::write(&file, text).unwrap();
        let text = read(&file).unwrap_err().text();
        assert!(text.contains("in a cluster only"), "{text}");
    }
}
