//! The one reading of the data: every record, in parallel, with every fault found.
//!
//! The files that are held out are read before those of the training split, so that of two copies
//! the one that is held out stays: scores of different runs then rest on the same examples.

use std::collections::HashMap;
use std::ops::ControlFlow;

use api::facts::DataFacts;
use api::fault::Fault;
use api::run_spec::{Data, Format, HeldOut};
use lm::tokenizer::Tokenizer;

use super::encode::Encoder;
use super::faults::Faults;
use super::files::{self, DataFile};
use super::intake::{Intake, Reader, Take, unreadable};
use super::meter::{Count, Meter};
use super::parallel::for_each_record;
use super::read::{self, Fields, Record};
use super::shape::{self, Shaper, Undetected};
use super::split::{Shares, Split};
use super::tally::Tally;

/// The files of all splits, found and not yet read: training files first, then validation and test files,
/// as faults are shown.
pub(super) struct Found {
    groups: Vec<Group>,
}

/// The files of one split.
struct Group {
    split: Split,
    files: Vec<DataFile>,
    faults: Faults,
}

impl Found {
    pub(super) fn of(data: &Data) -> Self {
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
        let groups = vec![
            group(Split::Train, &data.train),
            own(Split::Validation, &data.validation),
            own(Split::Test, &data.test),
        ];
        Self { groups }
    }

    pub(super) fn files(&self) -> Vec<(Split, &DataFile)> {
        let mut files = Vec::new();
        for group in &self.groups {
            files.extend(group.files.iter().map(|file| (group.split, file)));
        }
        files
    }
}

/// What is read, and with what.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) data: &'a Data,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) seed: u64,
    /// Of the files' contents.
    pub(super) digest: &'a str,
    /// Threads that understand records.
    pub(super) workers: usize,
}

/// Reads everything. Examples are handed on also when faults have been found.
pub(super) fn load(
    found: Found,
    reading: &Reading<'_>,
    meter: &mut Meter<'_>,
    take: &mut Take<'_>,
) -> DataFacts {
    let Reading { data, digest, workers, .. } = *reading;
    let mut groups = found.groups;
    let all_files = groups.iter().flat_map(|group| &group.files);
    let names: Vec<String> = all_files.map(|file| file.name.clone()).collect();
    let mut facts = DataFacts { digest: digest.to_owned(), ..DataFacts::default() };
    let mut settings = Faults::default();

    match shape::detect(&first_records(&groups[0].files), data) {
        Ok(format) => {
            facts.format = Some(format);
            let reader = reader(reading, format, &mut settings);
            if let Some(reader) = reader {
                read_groups(&reader, &mut groups, &names, &mut facts, meter, take);
                if facts.train.examples == 0 && groups[0].faults.is_empty() {
                    settings.add(nothing_to_train_on(&facts));
                }
            }
        }
        Err(undetected) => without_format(&mut groups, workers, meter, undetected),
    }
    let parts = std::iter::once(settings).chain(groups.into_iter().map(|group| group.faults));
    (facts.faults, facts.fault_count) = Faults::joined(parts);
    facts
}

/// What turns a record into examples, where the settings allow it.
fn reader<'a>(reading: &Reading<'a>, format: Format, faults: &mut Faults) -> Option<Reader<'a>> {
    let Reading { data, tokenizer, seed, workers, .. } = *reading;
    let shaper = Shaper::new(data, format).map_err(|more| faults.extend(more));
    let encoder = Encoder::new(tokenizer, data, format).map_err(|fault| faults.add(fault));
    let shares = Shares::new(data, seed).map_err(|fault| faults.add(fault));
    let (Ok(shaper), Ok(encoder), Ok(shares)) = (shaper, encoder, shares) else { return None };
    Some(Reader { shaper, encoder, shares, duplicates: data.duplicates, workers })
}

/// Where the format is unknown, what cannot be read at all is still found. Then that may be the reason
/// why there are no records to tell the format from.
fn without_format(
    groups: &mut [Group],
    workers: usize,
    meter: &mut Meter<'_>,
    undetected: Undetected,
) {
    let file = groups[0].files.first().map(|file| file.name.clone());
    for group in groups.iter_mut() {
        for file in &group.files {
            let work = |record: Record| (record.line, record.raw.into_fields().err());
            let end = for_each_record(file, workers, meter, &work, &mut |(line, error)| {
                group.faults.extend(error.map(|error| unreadable(file, Some(line), &error)));
            });
            if let Err((line, error)) = end {
                group.faults.add(unreadable(file, line, &error));
            }
        }
    }
    match undetected {
        Undetected::Unknown(fault) => groups[0].faults.add(Fault { file, ..fault }),
        Undetected::NoRecords if groups[0].faults.is_empty() => groups[0].faults.add(Fault {
            file,
            message: "there are no examples".to_owned(),
            hint: Some("name files that hold at least one record".to_owned()),
            ..Fault::default()
        }),
        Undetected::NoRecords => {}
    }
}

/// The first records that can be read, over all files.
fn first_records(files: &[DataFile]) -> Vec<Fields> {
    let mut records = Vec::new();
    for file in files {
        // What cannot be read is reported when the file is read in full.
        let _ = read::read(file, &Count::default(), &mut |record| {
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
    names: &[String],
    facts: &mut DataFacts,
    meter: &mut Meter<'_>,
    take: &mut Take<'_>,
) {
    let mut tallies = Tallies::default();
    let mut first_index: u32 = groups.iter().map(|group| group.files.len() as u32).sum();
    let mut seen = HashMap::new();
    for group in groups.iter_mut().rev() {
        first_index -= group.files.len() as u32;
        for (index, file) in (first_index..).zip(&group.files) {
            let faults = &mut group.faults;
            let seen = &mut seen;
            let mut intake = Intake { reader, file, index, facts, faults, names, seen };
            intake.read(group.split, meter, &mut |split, example| {
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
