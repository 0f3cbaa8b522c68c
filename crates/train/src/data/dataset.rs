//! The examples of a run in memory, and the survey that comes before it.

use api::facts::DataFacts;
use api::fault::Fault;
use api::run_spec::Data;
use lm::tokenizer::Tokenizer;

use super::example::Example;
use super::intake::Wanted;
use super::load::load;
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
    load(data, tokenizer, seed, Wanted::Facts, &mut |_, _| {}).facts
}

impl Dataset {
    /// Reads the data for training. With any fault in it there is no data set.
    pub fn open(data: &Data, tokenizer: &Tokenizer, seed: u64) -> Result<Self, DataError> {
        let (mut train, mut validation, mut test) = (Vec::new(), Vec::new(), Vec::new());
        let loaded =
            load(data, tokenizer, seed, Wanted::Examples, &mut |split, example| match split {
                Split::Train => train.push(example),
                Split::Validation => validation.push(example),
                Split::Test => test.push(example),
            });
        if loaded.facts.fault_count > 0 {
            return Err(DataError::Faults(Box::new(loaded.facts)));
        }
        Ok(Self { train, validation, test, files: loaded.files, facts: loaded.facts })
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
