//! Finds the data files that a source names, and tells by their names what they hold.
//!
//! Reads folders but no file contents. What a file holds goes by its extension, without regard to
//! case, after one of `.gz` and `.zst` is taken off.

use std::fs;
use std::path::{Path, PathBuf};

use api::fault::Fault;

/// How records lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// One JSON object per line.
    JsonLines,
    /// A list of objects, or objects one after another.
    Json,
    /// RFC 4180 with a header line.
    Csv,
    /// IANA `text/tab-separated-values`: a header line, tabs between values, no quoting.
    Tsv,
    Parquet,
    /// One text per line.
    Text,
}

/// The extensions that are read, for messages.
pub(super) const EXTENSIONS: &str =
    ".jsonl, .ndjson, .json, .csv, .tsv, .parquet and .txt, each also as .gz or .zst";

/// One file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    /// The path as the user sees it in messages.
    pub(super) name: String,
    pub(super) container: Container,
}

/// The files behind `sources`, in their order; a folder stands for the data files in it and below,
/// by name. Hidden files and, in folders, files with other extensions are passed over.
pub(super) fn find(sources: &[PathBuf]) -> (Vec<DataFile>, Vec<Fault>) {
    let mut files = Vec::new();
    let mut faults = Vec::new();
    for source in sources {
        if let Err(fault) = find_one(source, &mut files) {
            faults.push(fault);
        }
    }
    (files, faults)
}

fn find_one(source: &Path, files: &mut Vec<DataFile>) -> Result<(), Fault> {
    let metadata = fs::metadata(source).map_err(|error| cannot_read(source, &error))?;
    if !metadata.is_dir() {
        let container = container(source).ok_or_else(|| Fault {
            file: Some(source.display().to_string()),
            message: "the kind of file cannot be told from the name".to_owned(),
            hint: Some(format!("data files end in {EXTENSIONS}")),
            ..Fault::default()
        })?;
        files.push(data_file(source.to_owned(), container));
        return Ok(());
    }
    let before = files.len();
    find_in_folder(source, files)?;
    if files.len() == before {
        return Err(Fault {
            file: Some(source.display().to_string()),
            message: "the folder holds no data files".to_owned(),
            hint: Some(format!("data files end in {EXTENSIONS}")),
            ..Fault::default()
        });
    }
    Ok(())
}

fn find_in_folder(folder: &Path, files: &mut Vec<DataFile>) -> Result<(), Fault> {
    let entries = fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| cannot_read(folder, &error))?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if hidden {
            continue;
        }
        // `metadata` follows links: a mounted ConfigMap consists of them.
        let metadata = fs::metadata(&path).map_err(|error| cannot_read(&path, &error))?;
        if metadata.is_dir() {
            find_in_folder(&path, files)?;
        } else if let Some(container) = container(&path) {
            files.push(data_file(path, container));
        }
    }
    Ok(())
}

fn data_file(path: PathBuf, container: Container) -> DataFile {
    DataFile { name: path.display().to_string(), path, container }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Fault {
    Fault {
        file: Some(path.display().to_string()),
        message: format!("cannot read the data: {error}"),
        hint: Some(
            "check the path; a relative one starts at the folder of the workspace file".to_owned(),
        ),
        ..Fault::default()
    }
}

/// What the file holds, by its name.
fn container(path: &Path) -> Option<Container> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let stem = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end));
    let (_, extension) = stem.unwrap_or(&name).rsplit_once('.')?;
    match extension {
        "jsonl" | "ndjson" => Some(Container::JsonLines),
        "json" => Some(Container::Json),
        "csv" => Some(Container::Csv),
        "tsv" => Some(Container::Tsv),
        "parquet" => Some(Container::Parquet),
        "txt" => Some(Container::Text),
        _ => None,
    }
}
