//! The data path on files as users write them, with a real tokenizer.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cache;
mod chat;
mod faults;
mod files;
mod formats;
mod loader;
mod splits;
mod workers;

use std::fs;
use std::path::{Path, PathBuf};

use api::facts::DataFacts;
use api::run_spec::{Columns, Data, Duplicates, Format, HeldOut, Overlong};
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use serde_json::json;
use tempfile::TempDir;

use super::{DataError, Dataset, Example, Examples, survey};

const SEED: u64 = 7;

/// A folder of data files with the tiny model, whose tokens are single bytes.
struct Case {
    folder: TempDir,
    tokenizer: Tokenizer,
    data: Data,
}

impl Case {
    /// One training file.
    fn new(name: &str, contents: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        testkit::tiny_model::write(&model, 1).unwrap();
        let tokenizer = Tokenizer::open(&ModelFiles::open(&model).unwrap()).unwrap();
        let data = data(vec![folder.path().join(name)]);
        let case = Self { folder, tokenizer, data };
        case.write(name, contents);
        case
    }

    /// Adds a file; its path.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    fn survey(&self) -> DataFacts {
        survey(&self.data, &self.tokenizer, SEED)
    }

    fn open(&self) -> Opened {
        self.open_with(SEED)
    }

    fn open_with(&self, seed: u64) -> Opened {
        Opened::of(self.whole(seed, None).unwrap())
    }

    /// All of it, or its faults.
    fn whole(&self, seed: u64, cache: Option<&Path>) -> Result<Dataset, DataError> {
        Dataset::read(&self.data, &self.tokenizer, seed, cache, &mut |_, _| {}).whole()
    }

    /// The faults as the user sees them, without the folder's name.
    fn faults(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let faults = self.survey().faults;
        faults.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }

    /// Asserts that these are all faults.
    #[track_caller]
    fn refused(&self, expected: &[&str]) {
        assert_eq!(self.faults(), expected);
        assert_eq!(self.survey().fault_count, expected.len() as u64);
    }

    /// The learned text of an example, with `|` between runs.
    fn learned(&self, example: &Example) -> String {
        let runs = example
            .learned
            .iter()
            .map(|run| self.tokenizer.decode(&example.ids[run.tokens.clone()], false).unwrap());
        runs.collect::<Vec<_>>().join("|")
    }

    fn text(&self, example: &Example) -> String {
        self.tokenizer.decode(&example.ids, false).unwrap()
    }
}

/// A data set with its examples in memory.
#[derive(Debug)]
struct Opened {
    train: Vec<Example>,
    validation: Vec<Example>,
    test: Vec<Example>,
    facts: DataFacts,
    whole: Dataset,
}

impl Opened {
    fn of(whole: Dataset) -> Self {
        let all = |examples: &Examples| examples.iter().collect::<Result<_, _>>().unwrap();
        let splits = [&whole.train, &whole.validation, &whole.test].map(all);
        let [train, validation, test] = splits;
        Self { train, validation, test, facts: whole.facts.clone(), whole }
    }

    fn place(&self, example: &Example) -> String {
        self.whole.place(example)
    }
}

fn data(train: Vec<PathBuf>) -> Data {
    Data {
        train,
        validation: HeldOut::None,
        test: HeldOut::None,
        format: Format::Auto,
        columns: Columns::default(),
        template: None,
        system: None,
        labels: Vec::new(),
        max_sequence_length: 2048,
        overlong: Overlong::Fault,
        duplicates: Duplicates::Fault,
    }
}

/// `count` different conversations of one question and one answer, as JSONL.
fn conversations(count: usize) -> String {
    let lines = (0..count).map(|number| {
        json!({"messages": [
            {"role": "user", "content": format!("number {number}?")},
            {"role": "assistant", "content": format!("it is {number}")},
        ]})
        .to_string()
            + "\n"
    });
    lines.collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
