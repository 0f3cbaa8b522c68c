//! What a finished run publishes: its result as an OCI image that says where it comes from. The
//! trainer in a pod and `anneal run` on a laptop publish by this same code.

pub mod checkpoints;
pub mod hub;
pub mod machine;
pub mod message;
pub mod pod;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::RunSpec;
use api::run_spec::HeldOut;
use api::workspace::Score;
use oci::image::{MODELS, annotation};
use oci::{Error, Folder, Image, Options, Pushed, Target};
use train::{ExitClass, Outcome};

/// What the result depends on beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub spec: &'a RunSpec,
    /// `sha256:…` over the data, where it is known.
    pub data_digest: Option<&'a str>,
}

/// The class of exit codes that a failure of a registry or an image belongs to.
pub fn class(error: &Error) -> ExitClass {
    match error.class() {
        oci::Class::Input => ExitClass::Configuration,
        oci::Class::Refused => ExitClass::Refused,
        oci::Class::MayPass => ExitClass::Io,
    }
}

/// Scores of base and tuned model, as they are told: what `evaluation.gate` goes by.
pub fn scores(outcome: &Outcome) -> Vec<Score> {
    let rows = outcome.compared.iter().flat_map(|compared| &compared.rows);
    rows.map(|row| Score { metric: row.metric.clone(), base: Some(row.base), tuned: row.tuned })
        .collect()
}

/// The folder that downloads and tokens are kept in: `ANNEAL_CACHE`, or `.cache/anneal` in the home folder.
pub fn cache() -> Option<PathBuf> {
    let named = std::env::var_os("ANNEAL_CACHE").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache").join("anneal")))
}

/// The folder in it that tokens are kept in.
pub fn token_cache() -> Option<PathBuf> {
    cache().map(|folder| folder.join("tokens"))
}

/// Packs what the run left and pushes it.
pub fn publish(
    outcome: &Outcome,
    origin: &Origin<'_>,
    target: &Target,
    options: &Options,
) -> Result<Pushed, Error> {
    let image = pack(&outcome.finished.adapter, &annotations(outcome, origin))?;
    oci::blocking::push(&image, target, options)
}

/// The image of an adapter, or of the whole model after full fine-tuning.
pub fn pack(folder: &Path, annotations: &BTreeMap<String, String>) -> Result<Image, Error> {
    if folder.join("config.json").is_file() {
        return Ok(oci::image_from_dirs(&[Folder { root: MODELS, path: folder }], annotations)?);
    }
    Ok(oci::adapter_image(folder, annotations)?)
}

/// What the image says of itself. Nothing here differs between two runs with equal results.
fn annotations(outcome: &Outcome, origin: &Origin<'_>) -> BTreeMap<String, String> {
    let spec = origin.spec;
    let mut annotations = BTreeMap::from([
        (annotation::BASE_MODEL.to_owned(), anywhere(&spec.base_model.reference)),
        (annotation::RUN_SPEC_DIGEST.to_owned(), run_spec_digest(spec)),
    ]);
    let digests = [
        (annotation::BASE_MODEL_DIGEST, spec.base_model.digest.as_deref()),
        (annotation::DATA_DIGEST, origin.data_digest),
    ];
    for (name, digest) in digests {
        annotations.extend(digest.map(|digest| (name.to_owned(), digest.to_owned())));
    }
    if let Some(compared) = &outcome.compared {
        // Six digits: the last ones of a double do not survive every reader.
        let rounded = |value: f64| (value * 1e6).round() / 1e6;
        let scores: BTreeMap<&str, f64> =
            compared.rows.iter().map(|row| (row.metric.as_str(), rounded(row.tuned))).collect();
        let text = serde_json::to_string(&scores).unwrap_or_default();
        annotations.insert(annotation::METRICS.to_owned(), text);
    }
    annotations
}

/// The last part of a path, as the rest means nothing elsewhere; any other reference as it is.
fn anywhere(reference: &str) -> String {
    let path = Path::new(reference);
    let name = path.file_name().filter(|_| path.exists());
    name.map_or_else(|| reference.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Digest of what the run was told, without the paths of this machine.
fn run_spec_digest(spec: &RunSpec) -> String {
    let mut spec = spec.clone();
    spec.base_model.path = PathBuf::new();
    spec.base_model.reference = anywhere(&spec.base_model.reference);
    spec.output.dir = PathBuf::new();
    spec.data.train.clear();
    for held_out in [&mut spec.data.validation, &mut spec.data.test] {
        if let HeldOut::Files(files) = held_out {
            files.clear();
        }
    }
    oci::sha256(&serde_json::to_vec(&spec).unwrap_or_default())
}
