//! What a user reads when the files of a model are not what they should be.

use std::fs;
use std::path::Path;

use lm::files::{FilesError, ModelFiles};

use super::{fixture, told};

/// Opens a folder that `prepare` filled.
fn open(prepare: impl FnOnce(&Path)) -> (Result<ModelFiles, FilesError>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    (ModelFiles::open(folder.path()), folder)
}

#[track_caller]
fn refused(prepare: impl FnOnce(&Path), expected: &str) {
    let (outcome, folder) = open(prepare);
    let error = outcome.unwrap_err();
    assert_eq!(told(&error, folder.path()), expected);
    assert!(error.hint().is_some());
}

fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(name), bytes).unwrap();
}

#[test]
fn a_path_that_is_not_there() {
    let error = ModelFiles::open(Path::new("no/such/model")).unwrap_err();
    let expected = "cannot open base model no/such/model: no such file or folder";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_folder_that_holds_no_model() {
    refused(|_| {}, "cannot open base model MODEL: it is empty");
    refused(
        |folder| put(folder, "readme.txt", "x"),
        "cannot open base model MODEL: it has no config.json and no .gguf file",
    );
}

#[test]
fn a_folder_with_two_gguf_files() {
    refused(
        |folder| ["a.gguf", "b.gguf"].iter().for_each(|name| put(folder, name, "GGUF")),
        "cannot open base model MODEL: it holds 2 GGUF files (a.gguf, b.gguf)",
    );
}

#[test]
fn a_folder_without_weights() {
    refused(
        |folder| {
            put(folder, "config.json", "{}");
            put(folder, "pytorch_model.bin", "x");
        },
        "cannot open base model MODEL: no weights (model.safetensors or \
         model.safetensors.index.json); found only pytorch_model.bin",
    );
}

#[test]
fn missing_shards_are_named() {
    refused(
        |folder| {
            put(folder, "config.json", "{}");
            let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}}"#;
            put(folder, "model.safetensors.index.json", index);
            put(folder, "model-2.safetensors", "x");
        },
        "cannot open base model MODEL: model.safetensors.index.json names 3 files and 2 of them are \
         missing: model-1.safetensors, model-3.safetensors",
    );
}

#[test]
fn a_damaged_index() {
    refused(
        |folder| {
            put(folder, "config.json", "{}");
            put(folder, "model.safetensors.index.json", "[]");
        },
        "cannot read MODEL/model.safetensors.index.json: it has no `weight_map`",
    );
    refused(
        |folder| {
            put(folder, "config.json", "{}");
            put(folder, "model.safetensors.index.json", r#"{"weight_map": {"a": "../x"}}"#);
        },
        "cannot read MODEL/model.safetensors.index.json: the file of `a` is outside the folder: ../x",
    );
}

#[test]
fn a_truncated_safetensors_file() {
    let whole = fs::read(fixture("archs/llama.safetensors")).unwrap();
    let length = whole.len();
    refused(
        |folder| {
            put(folder, "config.json", "{}");
            put(folder, "model.safetensors", &whole[..length - 100]);
        },
        &format!(
            "cannot read MODEL/model.safetensors: the file is truncated: its header says {length} bytes, \
             and it has {}",
            length - 100
        ),
    );
    refused(
        |folder| {
            put(folder, "config.json", "{}");
            put(folder, "model.safetensors", "version https://git-lfs");
        },
        "cannot read MODEL/model.safetensors: its header is damaged: it does not start with a JSON object",
    );
}

#[test]
fn a_file_that_is_not_gguf() {
    refused(
        |folder| put(folder, "m.gguf", "version https://git-lfs.github.com/spec/v1"),
        "cannot read MODEL/m.gguf as GGUF: it starts with \"vers\", not with the bytes \"GGUF\"",
    );
    refused(
        |folder| put(folder, "m.gguf", ""),
        "cannot read MODEL/m.gguf as GGUF: it starts with only 0 bytes, not with the bytes \"GGUF\"",
    );
}

#[test]
fn a_gguf_version_that_is_not_known() {
    let mut bytes = fs::read(fixture("archs/llama.gguf")).unwrap();
    bytes[4] = 9;
    refused(
        |folder| put(folder, "m.gguf", &bytes),
        "cannot read MODEL/m.gguf: it is GGUF version 9, and versions 2 and 3 are supported",
    );
}

#[test]
fn a_truncated_gguf_file() {
    let whole = fs::read(fixture("archs/llama.gguf")).unwrap();
    let length = whole.len();
    let (outcome, folder) = open(|folder| put(folder, "m.gguf", &whole[..length - 500]));
    let text = told(&outcome.unwrap_err(), folder.path());
    let start = "cannot read MODEL/m.gguf: the file is truncated: its header says ";
    assert!(text.starts_with(start), "{text}");
    assert!(text.ends_with(&format!(" bytes, and it has {}", length - 500)), "{text}");
    // Cut anywhere, it is an error and nothing worse.
    for cut in (0..length).step_by(97) {
        let (outcome, _folder) = open(|folder| put(folder, "m.gguf", &whole[..cut]));
        assert!(outcome.is_err(), "cut at {cut}");
    }
}

#[test]
fn a_gguf_type_that_cannot_be_read() {
    let mut bytes = fs::read(fixture("quants/q8_0.gguf")).unwrap();
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    // After the name: the number of dimensions, two of eight bytes each, the type.
    bytes[at + name.len() + 4 + 16] = 10;
    refused(
        |folder| put(folder, "m.gguf", &bytes),
        "cannot read tensor `blk.0.attn_q.weight` of MODEL/m.gguf: its type is Q2_K, and the supported \
         types are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K",
    );
}

#[test]
fn a_folder_with_one_gguf_file_is_that_file() {
    let (files, folder) = open(|folder| {
        fs::copy(fixture("archs/llama.gguf"), folder.join("m.gguf")).unwrap();
    });
    assert_eq!(files.unwrap(), ModelFiles::Gguf(folder.path().join("m.gguf")));
    let (files, folder) = open(|folder| {
        fs::copy(fixture("archs/llama.gguf"), folder.join("m.gguf")).unwrap();
        put(folder, "config.json", "{}");
    });
    assert_eq!(files.unwrap(), ModelFiles::Gguf(folder.path().join("m.gguf")));
}
