//! The examples of a run in memory, and the survey that comes before it.

use api::facts::DataFacts;
use api::fault::Fault;
use api::run_spec::Data;
use lm::tokenizer::Tokenizer;

use super::example::Example;
use super::intake::Wanted;
use super::load::load;
use super::meter::Tell;
use super::split::Split;

/// The three splits in tokens, each in the order of its files.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub train: Vec<Example>,
    pub validation: Vec<Example>,
    pub test: Vec<Example>,
    /// Names of the files that [`Example::file`] points into.
    pub files: Vec<String>,
    pub facts: DataFacts,
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
    survey_with(data, tokenizer, seed, &mut |_, _| {})
}

/// The same, telling how far it is.
pub fn survey_with(
    data: &Data,
    tokenizer: &Tokenizer,
    seed: u64,
    tell: &mut Tell<'_>,
) -> DataFacts {
    load(data, tokenizer, seed, Wanted::Facts, tell, &mut |_, _| {}).facts
}

impl Dataset {
    /// Reads the data for training. With any fault in it there is no data set.
    pub fn open(data: &Data, tokenizer: &Tokenizer, seed: u64) -> Result<Self, DataError> {
        Self::read(data, tokenizer, seed, &mut |_, _| {}).whole()
    }

    /// Reads the data, telling how far it is. The facts say what is wrong with it.
    pub fn read(data: &Data, tokenizer: &Tokenizer, seed: u64, tell: &mut Tell<'_>) -> Self {
        let (mut train, mut validation, mut test) = (Vec::new(), Vec::new(), Vec::new());
        let mut take = |split, example| match split {
            Split::Train => train.push(example),
            Split::Validation => validation.push(example),
            Split::Test => test.push(example),
        };
        let loaded = load(data, tokenizer, seed, Wanted::Examples, tell, &mut take);
        Self {
            train,
            validation,
            test,
            files: loaded.files,
            facts: loaded.facts,
            data: data.clone(),
            seed,
            told_time: tokenizer.told_time(),
        }
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
