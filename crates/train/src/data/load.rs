//! The one reading of the data: every record, in parallel, with every fault found.
//!
//! The files that are held out are read before those of the training split, so that of two copies
//! the one that is held out stays: scores of different runs then rest on the same examples.

use std::collections::HashMap;
use std::ops::ControlFlow;

use api::facts::DataFacts;
use api::fault::Fault;
use api::run_spec::{Data, Duplicates, Format, HeldOut};
use lm::tokenizer::Tokenizer;

use super::digest::digest;
use super::encode::{EncodeError, Encoded, Encoder};
use super::example::Example;
use super::faults::Faults;
use super::files::{self, Container, DataFile};
use super::parallel::for_each_record;
use super::read::{self, Fields, ReadError, Record};
use super::sample::ContentHash;
use super::shape::{self, ShapeError, Shaper};
use super::split::{Shares, Split};
use super::tally::Tally;

/// What the caller does with the examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Facts,
    Examples,
}

/// The facts, and the names that [`Example::file`] points into.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) facts: DataFacts,
    pub(super) files: Vec<String>,
}

/// Where each example goes.
pub(super) type Take<'a> = dyn FnMut(Split, Example) + 'a;

/// The files of one split.
struct Group {
    split: Split,
    files: Vec<DataFile>,
    faults: Faults,
}

/// Reads everything. Examples are handed on also when faults have been found.
pub(super) fn load(
    data: &Data,
    tokenizer: &Tokenizer,
    seed: u64,
    wanted: Wanted,
    take: &mut Take<'_>,
) -> Loaded {
    let mut groups = groups(data);
    let all_files = || groups.iter().flat_map(|group| &group.files);
    let files: Vec<String> = all_files().map(|file| file.name.clone()).collect();
    let mut facts = DataFacts { digest: digest(all_files()), ..DataFacts::default() };
    let mut settings = Faults::default();

    if let Some(reader) = reader(data, tokenizer, seed, wanted, &groups[0].files, &mut settings) {
        facts.format = Some(reader.format);
        read_groups(&reader, &mut groups, &mut facts, take);
        if facts.train.examples == 0 && settings.is_empty() && groups[0].faults.is_empty() {
            settings.add(nothing_to_train_on(&facts));
        }
    }
    let parts = std::iter::once(settings).chain(groups.into_iter().map(|group| group.faults));
    (facts.faults, facts.fault_count) = Faults::joined(parts);
    Loaded { facts, files }
}

/// Training files first, then validation and test files, as faults are shown.
fn groups(data: &Data) -> Vec<Group> {
    let group = |split, sources: &[_]| {
        let (files, missing) = files::find(sources);
        let mut faults = Faults::default();
        faults.extend(missing);
        Group { split, files, faults }
    };
    let own = |split, held_out: &HeldOut| match held_out {
        HeldOut::Files(sources) => group(split, sources),
        HeldOut::None | HeldOut::Fraction(_) => group(split, &[]),
    };
    vec![
        group(Split::Train, &data.train),
        own(Split::Validation, &data.validation),
        own(Split::Test, &data.test),
    ]
}

/// Everything that turns a record into examples, when the settings allow it.
struct Reader<'a> {
    format: Format,
    shaper: Shaper<'a>,
    encoder: Encoder<'a>,
    shares: Shares,
    duplicates: Duplicates,
    wanted: Wanted,
}

fn reader<'a>(
    data: &'a Data,
    tokenizer: &'a Tokenizer,
    seed: u64,
    wanted: Wanted,
    train: &[DataFile],
    faults: &mut Faults,
) -> Option<Reader<'a>> {
    let format = match shape::detect(&first_records(train), data) {
        Ok(format) => format,
        Err(fault) => {
            faults.add(Fault { file: train.first().map(|file| file.name.clone()), ..fault });
            return None;
        }
    };
    let shaper = Shaper::new(data, format).map_err(|more| faults.extend(more));
    let encoder = Encoder::new(tokenizer, data, format).map_err(|fault| faults.add(fault));
    let shares = Shares::new(data, seed).map_err(|fault| faults.add(fault));
    let (Ok(shaper), Ok(encoder), Ok(shares)) = (shaper, encoder, shares) else { return None };
    Some(Reader { format, shaper, encoder, shares, duplicates: data.duplicates, wanted })
}

/// The first records that can be read, over all files.
fn first_records(files: &[DataFile]) -> Vec<Fields> {
    let mut records = Vec::new();
    for file in files {
        // What cannot be read is reported when the file is read in full.
        let _ = read::read(file, &mut |record| {
            records.extend(record.raw.into_fields());
            let enough = records.len() >= shape::SAMPLE_SIZE;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if records.len() >= shape::SAMPLE_SIZE {
            break;
        }
    }
    records
}

fn read_groups(
    reader: &Reader<'_>,
    groups: &mut [Group],
    facts: &mut DataFacts,
    take: &mut Take<'_>,
) {
    let mut tallies = Tallies::default();
    let mut first_index: u32 = groups.iter().map(|group| group.files.len() as u32).sum();
    let mut seen = HashMap::new();
    for group in groups.iter_mut().rev() {
        first_index -= group.files.len() as u32;
        for (index, file) in (first_index..).zip(&group.files) {
            let faults = &mut group.faults;
            let mut intake = Intake { reader, file, index, facts, faults, seen: &mut seen };
            intake.read(group.split, &mut |split, example| {
                tallies.of(split).add(&example);
                take(split, example);
            });
        }
    }
    facts.train = tallies.train.facts();
    facts.validation = tallies.validation.facts();
    facts.test = tallies.test.facts();
}

#[derive(Default)]
struct Tallies {
    train: Tally,
    validation: Tally,
    test: Tally,
}

impl Tallies {
    fn of(&mut self, split: Split) -> &mut Tally {
        match split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
            Split::Test => &mut self.test,
        }
    }
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
        let ask = self.wanted == Wanted::Examples && split != Split::Train;
        Ok(Understood { hash, split, encoded: self.encoder.encode(&sample, ask)? })
    }
}

/// Takes in the records of one file.
struct Intake<'a, 'b> {
    reader: &'a Reader<'b>,
    file: &'a DataFile,
    index: u32,
    facts: &'a mut DataFacts,
    faults: &'a mut Faults,
    /// Where each content was first seen: half of its hash is plenty.
    seen: &'a mut HashMap<[u8; 16], (u32, String, u64)>,
}

impl Intake<'_, '_> {
    fn read(&mut self, group: Split, take: &mut Take<'_>) {
        let (reader, file) = (self.reader, self.file);
        let work = |record: Record| (record.line, reader.understand(group, record));
        let end = for_each_record(file, &work, &mut |(line, result)| match result {
            Ok(understood) => self.accept(line, understood, take),
            Err(error) => self.refuse(line, &error),
        });
        if let Err((line, error)) = end {
            self.faults.add(self.fault(line, error.to_string(), Some(error.hint())));
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
        let Some((_, name, first)) = self.seen.get(&key) else {
            self.seen.insert(key, (self.index, self.file.name.clone(), line));
            return false;
        };
        if self.reader.duplicates == Duplicates::Drop {
            self.facts.dropped += 1;
        } else {
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

fn nothing_to_train_on(facts: &DataFacts) -> Fault {
    let held_out = facts.validation.examples + facts.test.examples;
    let hint = match (facts.dropped, held_out) {
        (0, 0) => "name files that hold at least one record".to_owned(),
        (0, held_out) => format!("{held_out} are held out; hold out less, or add examples"),
        (dropped, _) => format!(
            "{dropped} were dropped; raise spec.hyperparameters.maxSequenceLength, or check \
             spec.data.overlong and spec.data.duplicates"
        ),
    };
    Fault {
        field: Some("spec.data.train".to_owned()),
        message: "there are no examples to train on".to_owned(),
        hint: Some(hint),
        ..Fault::default()
    }
}
