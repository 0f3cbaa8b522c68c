//! `events.jsonl`: written line by line, read back even after a crash tore the last line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Event;
use crate::files::FileError;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970, UTC.
    pub at: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// The file, open for appending.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
}

impl EventLog {
    /// Opens the file and cuts it back to `keep` bytes, the length that a checkpoint recorded, so
    /// that steps which are about to be repeated do not appear twice. A torn last line is cut too.
    pub fn open(path: &Path, keep: u64) -> Result<Self, FileError> {
        let open = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            let whole_lines = whole_lines(&mut file, keep)?;
            file.set_len(whole_lines)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(FileError::of("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes one line. [`Event::Progress`] is for the eye only and is left out.
    pub fn append(&mut self, event: &Event) -> Result<(), FileError> {
        if matches!(event, Event::Progress { .. }) {
            return Ok(());
        }
        let record = Record { at: unix_milliseconds(), event: event.clone() };
        let mut line = serde_json::to_string(&record)
            .map_err(|error| FileError::of("write", &self.path)(error.into()))?;
        line.push('\n');
        // One write for the whole line, with no buffer of ours that a crash could lose.
        self.file.write_all(line.as_bytes()).map_err(FileError::of("write", &self.path))
    }

    /// Waits until all is on the disk, and says how long the file is in bytes.
    pub fn sync(&mut self) -> Result<u64, FileError> {
        let sync = |file: &mut File| {
            file.sync_data()?;
            file.stream_position()
        };
        sync(&mut self.file).map_err(FileError::of("write", &self.path))
    }
}

/// Reads all whole lines; one that a crash tore, or that a newer version wrote, is left out.
pub fn read(path: &Path) -> Result<Vec<Record>, FileError> {
    let file = File::open(path).map_err(FileError::of("read", path))?;
    let mut records = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(FileError::of("read", path))?;
        records.extend(serde_json::from_slice::<Record>(&line));
    }
    Ok(records)
}

/// Length of the whole lines within the first `keep` bytes.
fn whole_lines(file: &mut File, keep: u64) -> std::io::Result<u64> {
    let mut bytes = Vec::new();
    file.take(keep).read_to_end(&mut bytes)?;
    Ok(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last as u64 + 1))
}

fn unix_milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
