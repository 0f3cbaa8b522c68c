//! Tokens of data that were read before: one file for each reading, named by everything that it was made of.
//!
//! A file is written under a temporary name and renamed when it is whole, and checked when it is opened: one
//! that is damaged counts as none, so nothing has to wait until it is on the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::run_spec::{Data, HeldOut};
use lm::tokenizer::Tokenizer;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempPath;

use super::files::DataFile;
use super::split::Split;
use super::store::Stored;
use crate::files::hex;

/// Readings that are kept; the ones that were not used for longest go.
const KEPT: usize = 8;
/// Age at which an unfinished file is taken for what a killed process left.
const LEFT_OVER: Duration = Duration::from_hours(24);
/// The layout of a file, for those of other versions.
const FORMAT: u32 = 2;

/// Everything that examples depend on.
pub(super) struct Made<'a> {
    pub(super) data: &'a Data,
    pub(super) seed: u64,
    pub(super) tokenizer: &'a Tokenizer,
    /// Of all files, one after another.
    pub(super) digest: &'a str,
    /// The files with the split that they stand for, and their looks when they were read.
    pub(super) files: &'a [(Split, &'a DataFile)],
    pub(super) looks: &'a [Look],
}

/// Size and time of a file; none where it cannot be looked at.
pub(super) type Look = Option<(u64, SystemTime)>;

/// How the files look now: one that changed while it was read is not kept.
pub(super) fn looks(files: &[(Split, &DataFile)]) -> Vec<Look> {
    let look = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    files.iter().map(|(_, file)| look(&file.path)).collect()
}

impl Made<'_> {
    /// The name of what was made of this. Where the files lie does not matter.
    pub(super) fn key(&self) -> String {
        let mut data = self.data.clone();
        data.train.clear();
        let mut shares = false;
        for held_out in [&mut data.validation, &mut data.test] {
            match held_out {
                HeldOut::Files(files) => files.clear(),
                HeldOut::Fraction(_) => shares = true,
                HeldOut::None => {}
            }
        }
        let tokenizer = self.tokenizer;
        // The lengths say where in the digest's bytes a file ends.
        let files = self.files.iter().zip(self.looks).map(|((split, file), look)| {
            let bytes = look.map(|(bytes, _)| bytes);
            json!([format!("{split:?}"), format!("{:?}", file.container), bytes])
        });
        let made = json!({
            "format": FORMAT,
            "program": program(),
            "tokenizer": tokenizer.fingerprint(),
            "time": tokenizer.tells_time().then_some(tokenizer.told_time()),
            "data": data,
            "seed": shares.then_some(self.seed),
            "digest": self.digest,
            "files": files.collect::<Vec<_>>(),
        });
        hex(&Sha256::digest(made.to_string()))
    }
}

/// Size and time of this program: another build may read the same data in another way.
fn program() -> Option<(u64, u128)> {
    let metadata = fs::metadata(std::env::current_exe().ok()?).ok()?;
    let modified = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((metadata.len(), modified.as_nanos()))
}

/// What was kept in `folder` under `key`.
pub(super) fn open(folder: &Path, key: &str) -> Option<Stored> {
    let path = folder.join(key);
    match Stored::open(&path) {
        Ok(stored) => {
            // Where the folder is read-only, the order in which files go is another one.
            let _ = File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()));
            Some(stored)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                "tokens that were kept cannot be used, and are made anew: `{}`: {error}",
                path.display()
            );
            None
        }
    }
}

/// Keeps a file that is whole under `key`, and removes old ones.
pub(super) fn keep(written: TempPath, folder: &Path, key: &str) {
    let kept = written.persist(folder.join(key)).map_err(|error| error.error);
    if let Err(error) = kept.and_then(|()| remove_old(folder)) {
        tracing::warn!("cannot keep tokens in `{}`: {error}", folder.display());
    }
}

/// Others keep and remove files here at the same time: what is gone is as it should be.
fn remove_old(folder: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else {
            continue;
        };
        let is_being_written = entry.file_name().as_encoded_bytes().starts_with(b".")
            && modified.elapsed().is_ok_and(|since| since < LEFT_OVER);
        if !is_being_written {
            files.push((modified, entry.path()));
        }
    }
    files.sort_unstable();
    for (_, path) in files.iter().rev().skip(KEPT) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
