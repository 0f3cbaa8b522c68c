//! The examples of a run, and the survey that comes before it.

use std::io;
use std::path::Path;

use api::facts::DataFacts;
use api::fault::Fault;
use api::run_spec::Data;
use lm::tokenizer::Tokenizer;

use super::cache::{self, Made};
use super::digest::digest;
use super::example::Example;
use super::load::{Found, Reading, load};
use super::meter::{Meter, Tell};
use super::split::Split;
use super::store::{Examples, Stored, Writer};
use crate::runtime;

/// The three splits in tokens, each in the order of its files.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub train: Examples,
    pub validation: Examples,
    pub test: Examples,
    /// Names of the files that [`Example::file`] points into.
    pub files: Vec<String>,
    pub facts: DataFacts,
    /// Whether an earlier reading had kept the tokens.
    pub from_cache: bool,
    /// What it was read by.
    data: Data,
    seed: u64,
    told_time: i64,
}

/// Why there is no data set.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{}", summary(.0))]
    Faults(Box<DataFacts>),
}

impl DataError {
    /// The first faults, at most [`api::facts::MAX_FAULTS_SHOWN`].
    pub fn faults(&self) -> &[Fault] {
        let Self::Faults(facts) = self;
        &facts.faults
    }
}

/// Reads all of the data and reports what it holds and everything that is wrong with it.
///
/// Needs no LibTorch device. `seed` is the run's: it takes part in the choice of splits.
pub fn survey(data: &Data, tokenizer: &Tokenizer, seed: u64) -> DataFacts {
    Dataset::read(data, tokenizer, seed, None, &mut |_, _| {}).facts
}

impl Dataset {
    /// Reads the data, telling how far it is. The facts say what is wrong with it.
    ///
    /// Tokens are kept in the folder `cache` and found there the next time. Without one, or where it cannot
    /// be written, they are held in memory.
    pub fn read(
        data: &Data,
        tokenizer: &Tokenizer,
        seed: u64,
        cache: Option<&Path>,
        tell: &mut Tell<'_>,
    ) -> Self {
        let found = Found::of(data);
        let files = found.files();
        let names = files.iter().map(|(_, file)| file.name.clone()).collect();
        let mut meter = Meter::new(files.iter().map(|(_, file)| *file), tell);
        let looks = cache::looks(&files);
        let digest = digest(files.iter().map(|(_, file)| *file));
        let made = Made { data, seed, tokenizer, digest: &digest, files: &files, looks: &looks };
        let place = cache.map(|folder| (folder, made.key()));
        let kept = place.as_ref().and_then(|(folder, key)| cache::open(folder, key));
        let from_cache = kept.is_some();
        let stored = kept.unwrap_or_else(|| {
            let workers = runtime::available_threads();
            let reading = Reading { data, tokenizer, seed, digest: &digest, workers };
            let unchanged = || cache::looks(&files) == looks;
            read_anew(&reading, place.as_ref(), &unchanged, &mut meter)
        });
        meter.end();
        let Stored { train, validation, test, facts } = stored;
        let (data, told_time) = (data.clone(), tokenizer.told_time());
        Self { train, validation, test, files: names, facts, from_cache, data, seed, told_time }
    }

    /// The data set, if there is no fault in it.
    pub fn whole(self) -> Result<Self, DataError> {
        match self.facts.fault_count {
            0 => Ok(self),
            _ => Err(DataError::Faults(Box::new(self.facts))),
        }
    }

    /// Whether these are the examples that `asked` stands for. `tokenizer` is the one that they were read
    /// with, but may tell another time.
    pub fn is_what(&self, asked: &Data, seed: u64, tokenizer: &Tokenizer) -> bool {
        let mut data = self.data.clone();
        data.format = self.facts.format.unwrap_or(data.format);
        // A lower limit that all examples keep to changes none: what was cut or dropped was longer.
        let splits = [&self.facts.train, &self.facts.validation, &self.facts.test];
        let longest = splits.map(|split| split.longest as usize).into_iter().max().unwrap_or(0);
        if (longest..=data.max_sequence_length).contains(&asked.max_sequence_length) {
            data.max_sequence_length = asked.max_sequence_length;
        }
        let same_time = !tokenizer.tells_time() || self.told_time == tokenizer.told_time();
        data == *asked && self.seed == seed && same_time
    }

    /// The time that the chat template was told, in seconds since 1970.
    pub fn told_time(&self) -> i64 {
        self.told_time
    }

    /// `file:line` of an example's record.
    pub fn place(&self, example: &Example) -> String {
        let file = self.files.get(example.file as usize).map_or("?", |name| name);
        format!("{file}:{}", example.line)
    }
}

/// All faults that are shown, and how many more there are.
fn summary(facts: &DataFacts) -> String {
    let mut lines: Vec<String> = facts.faults.iter().map(ToString::to_string).collect();
    let more = facts.fault_count.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more faults"));
    }
    lines.join("\n")
}

/// Reads the data themselves, and keeps the tokens in `place` where there is one and no fault was found.
fn read_anew(
    reading: &Reading<'_>,
    place: Option<&(&Path, String)>,
    unchanged: &dyn Fn() -> bool,
    meter: &mut Meter<'_>,
) -> Stored {
    let mut read = |mut writer: Writer| {
        let mut take = |split: Split, example: Example| writer.push(split, &example);
        let facts = load(Found::of(reading.data), reading, meter, &mut take);
        writer.finish(facts)
    };
    if let Some((folder, key)) = place {
        match Writer::in_folder(folder).and_then(&mut read) {
            Ok((stored, written)) => {
                if let (Some(written), 0, true) = (written, stored.facts.fault_count, unchanged()) {
                    cache::keep(written, folder, key);
                }
                return stored;
            }
            Err(error) => held_in_memory(folder, &error),
        }
    }
    read(Writer::in_memory()).expect("memory takes what it is given").0
}

fn held_in_memory(folder: &Path, error: &io::Error) {
    let folder = folder.display();
    tracing::warn!("tokens are held in memory, since `{folder}` cannot be written: {error}");
}
