//! Takes in the records of a file: each is understood by itself, in parallel, then compared with those
//! before it, in order.

use std::collections::HashMap;

use api::facts::DataFacts;
use api::fault::Fault;
use api::run_spec::Duplicates;

use super::encode::{EncodeError, Encoded, Encoder};
use super::example::Example;
use super::faults::Faults;
use super::files::{Container, DataFile};
use super::meter::Meter;
use super::parallel::for_each_record;
use super::read::{ReadError, Record};
use super::sample::ContentHash;
use super::shape::{ShapeError, Shaper};
use super::split::{Shares, Split};

/// Where each example goes.
pub(super) type Take<'a> = dyn FnMut(Split, Example) + 'a;

/// Everything that turns a record into examples, when the settings allow it.
pub(super) struct Reader<'a> {
    pub(super) shaper: Shaper<'a>,
    pub(super) encoder: Encoder<'a>,
    pub(super) shares: Shares,
    pub(super) duplicates: Duplicates,
    /// Threads that understand records.
    pub(super) workers: usize,
}

/// A record that was understood.
struct Understood {
    hash: ContentHash,
    split: Split,
    encoded: Encoded,
}

/// Why a record is no example.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Reader<'_> {
    /// The work on one record that needs to know of no other.
    fn understand(&self, group: Split, record: Record) -> Result<Understood, RecordError> {
        let sample = self.shaper.sample(record.raw.into_fields()?)?;
        let hash = sample.content_hash();
        let split = if group == Split::Train { self.shares.split(&hash) } else { group };
        let ask = split != Split::Train;
        Ok(Understood { hash, split, encoded: self.encoder.encode(&sample, ask)? })
    }
}

/// Takes in the records of one file.
pub(super) struct Intake<'a, 'b> {
    pub(super) reader: &'a Reader<'b>,
    pub(super) file: &'a DataFile,
    pub(super) index: u32,
    pub(super) facts: &'a mut DataFacts,
    pub(super) faults: &'a mut Faults,
    /// Names of all files.
    pub(super) names: &'a [String],
    /// File and line where each content was first seen: half of its hash is plenty.
    pub(super) seen: &'a mut HashMap<[u8; 16], (u32, u64)>,
}

impl Intake<'_, '_> {
    pub(super) fn read(&mut self, group: Split, meter: &mut Meter<'_>, take: &mut Take<'_>) {
        let (reader, file) = (self.reader, self.file);
        let work = |record: Record| (record.line, reader.understand(group, record));
        let mut hear = |(line, result)| match result {
            Ok(understood) => self.accept(line, understood, take),
            Err(error) => self.refuse(line, &error),
        };
        let end = for_each_record(file, reader.workers, meter, &work, &mut hear);
        if let Err((line, error)) = end {
            self.faults.add(unreadable(self.file, line, &error));
        }
    }

    fn accept(&mut self, line: u64, understood: Understood, take: &mut Take<'_>) {
        let Understood { hash, split, encoded } = understood;
        if self.reader.duplicates != Duplicates::Keep && self.is_copy(line, hash) {
            return;
        }
        self.facts.dropped += u64::from(encoded.dropped);
        self.facts.truncated += u64::from(encoded.truncated);
        for example in encoded.examples {
            take(split, Example { file: self.index, line, ..example });
        }
    }

    /// Whether the content was seen before; deals with the copy if so.
    fn is_copy(&mut self, line: u64, hash: ContentHash) -> bool {
        let key = std::array::from_fn(|index| hash[index]);
        let Some((file, first)) = self.seen.get(&key) else {
            self.seen.insert(key, (self.index, line));
            return false;
        };
        if self.reader.duplicates == Duplicates::Drop {
            self.facts.dropped += 1;
        } else {
            let name = &self.names[*file as usize];
            let message = format!("the record is a copy of {name}:{first}");
            let hint = "remove it, or set spec.data.duplicates to Drop or Keep".to_owned();
            self.faults.add(self.fault(Some(line), message, Some(hint)));
        }
        true
    }

    fn refuse(&mut self, line: u64, error: &RecordError) {
        let (offset, hint) = match error {
            RecordError::Read(error) => (error.line_offset(), Some(error.hint())),
            RecordError::Shape(error) => (0, Some(error.hint())),
            RecordError::Encode(error) => (0, error.hint()),
        };
        let fault = self.fault(Some(line + offset), error.to_string(), hint);
        let table = match self.file.container {
            Container::Csv | Container::Tsv | Container::Parquet => true,
            Container::JsonLines | Container::Json | Container::Text => false,
        };
        match error {
            RecordError::Shape(error) if table && error.is_of_the_header() => {
                self.faults.add_once(fault);
            }
            _ => self.faults.add(fault),
        }
    }

    fn fault(&self, line: Option<u64>, message: String, hint: Option<String>) -> Fault {
        Fault { file: Some(self.file.name.clone()), line, field: None, message, hint }
    }
}

/// The fault of a file or a record that cannot be read.
pub(super) fn unreadable(file: &DataFile, line: Option<u64>, error: &ReadError) -> Fault {
    Fault {
        file: Some(file.name.clone()),
        line: line.map(|line| line + error.line_offset()),
        field: None,
        message: error.to_string(),
        hint: Some(error.hint()),
    }
}
