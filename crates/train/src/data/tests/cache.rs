//! Kept tokens: used where everything is the same, made anew where anything differs or they are damaged.

use std::fs;
use std::path::{Path, PathBuf};

use api::run_spec::{Duplicates, HeldOut};

use super::super::split::Split;
use super::super::store::Writer;
use super::{Case, Opened, SEED, conversations};

/// Reads with the cache; whether it was used, and the examples.
fn read(case: &Case) -> (bool, Opened) {
    let whole = case.whole(SEED, Some(&folder(case))).unwrap();
    (whole.from_cache, Opened::of(whole))
}

fn folder(case: &Case) -> PathBuf {
    case.folder.path().join("tokens")
}

fn kept(case: &Case) -> Vec<PathBuf> {
    fs::read_dir(folder(case)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn case() -> Case {
    let mut case = Case::new("a.jsonl", conversations(200));
    case.data.validation = HeldOut::Fraction(0.2);
    let more = conversations(260).lines().skip(200).collect::<Vec<_>>().join("\n");
    case.data.test = HeldOut::Files(vec![case.write("test.jsonl", more)]);
    case
}

#[track_caller]
fn equal(one: &Opened, other: &Opened) {
    assert_eq!(one.facts, other.facts);
    assert_eq!(one.train, other.train);
    assert_eq!(one.validation, other.validation);
    assert_eq!(one.test, other.test);
}

#[test]
fn the_second_reading_gives_what_the_first_gave() {
    let case = case();
    let (first, second) = (read(&case), read(&case));
    assert_eq!((first.0, second.0), (false, true));
    equal(&first.1, &second.1);
    equal(&first.1, &case.open());
    assert!(first.1.test.iter().all(|example| example.question.is_some()));
    assert_eq!(kept(&case).len(), 1);
}

#[test]
fn whatever_examples_depend_on_misses() {
    let mut case = case();
    read(&case);
    let misses = |case: &Case, what: &str| assert!(!read(case).0, "{what}");
    let hits = |case: &Case| assert!(read(case).0);
    case.data.max_sequence_length = 1000;
    misses(&case, "an option");
    case.data.duplicates = Duplicates::Keep;
    misses(&case, "another option");
    hits(&case);
    assert!(!case.whole(SEED + 1, Some(&folder(&case))).unwrap().from_cache);
    case.data.validation = HeldOut::None;
    misses(&case, "the splits");
    // Without shares the seed takes no part.
    assert!(case.whole(SEED + 1, Some(&folder(&case))).unwrap().from_cache);
    case.write("a.jsonl", conversations(201));
    misses(&case, "the data");
    // The same bytes, with another border between the files.
    let all = conversations(260);
    let at = all.match_indices('\n').nth(100).unwrap().0 + 1;
    let (one, other) = all.split_at(at);
    case.write("a.jsonl", one);
    case.data.test = HeldOut::Files(vec![case.write("test.jsonl", other)]);
    misses(&case, "the border");
    let model = case.folder.path().join("model/tokenizer_config.json");
    let text = fs::read_to_string(&model).unwrap();
    let other = text.replace("\"{% for", "\"{{ ' ' }}{% for");
    assert_ne!(text, other);
    fs::write(&model, other).unwrap();
    let files = lm::files::ModelFiles::open(model.parent().unwrap()).unwrap();
    case.tokenizer = lm::tokenizer::Tokenizer::open(&files).unwrap();
    misses(&case, "the chat template");
}

#[test]
fn other_names_of_the_same_files_hit() {
    let mut case = case();
    read(&case);
    let moved = case.folder.path().join("moved.jsonl");
    fs::rename(&case.data.train[0], &moved).unwrap();
    case.data.train = vec![moved];
    let (hit, opened) = read(&case);
    assert!(hit);
    assert!(opened.place(&opened.train[0]).contains("moved.jsonl:"));
}

#[test]
fn damage_is_no_error_and_is_repaired() {
    let case = case();
    let (_, first) = read(&case);
    let path = kept(&case).remove(0);
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let end = whole.len();
    let damaged = [
        Vec::new(),
        whole[..10].to_vec(),
        whole[..end - 1].to_vec(),
        flipped(0),
        flipped(end / 2),
        flipped(end - 1),
        flipped(end - 20),
    ];
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        let (hit, again) = read(&case);
        assert!(!hit);
        equal(&first, &again);
        assert!(read(&case).0);
    }
}

#[test]
fn data_with_faults_are_not_kept() {
    let case = Case::new("a.jsonl", format!("{}oops\n", conversations(3)));
    for _ in 0..2 {
        let error = case.whole(SEED, Some(&folder(&case))).unwrap_err();
        assert_eq!(error.faults().len(), 1);
        assert!(kept(&case).is_empty());
    }
}

#[test]
fn where_nothing_can_be_written_tokens_are_in_memory() {
    let case = case();
    let file = case.write("file", "");
    let whole = case.whole(SEED, Some(&file)).unwrap();
    assert!(!whole.from_cache);
    equal(&Opened::of(whole), &case.open());
}

#[test]
fn the_ones_that_were_not_used_for_longest_go() {
    let mut case = case();
    for length in 1000..1012 {
        case.data.max_sequence_length = length;
        read(&case);
    }
    assert_eq!(kept(&case).len(), 8);
    assert!(read(&case).0);
    case.data.max_sequence_length = 1000;
    assert!(!read(&case).0);
}

#[test]
fn a_file_that_is_cut_short_while_it_is_used_is_an_error() {
    let case = case();
    read(&case);
    let whole = case.whole(SEED, Some(&folder(&case))).unwrap();
    fs::write(&kept(&case)[0], "").unwrap();
    let error = whole.train.get(whole.train.len() - 1).unwrap_err().to_string();
    assert!(error.starts_with("cannot read `"), "{error}");
}

#[test]
fn a_file_of_many_examples_is_written_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let example = |id: u32| super::Example { ids: vec![id; 50_000], ..Default::default() };
    let write = |mut writer: Writer| {
        (0..40).for_each(|id| writer.push(Split::Test, &example(id)));
        writer.finish(super::DataFacts::default()).unwrap()
    };
    let (stored, path) = write(Writer::in_folder(folder.path()).unwrap());
    assert_eq!(stored.test.get(39).unwrap(), example(39));
    let again = super::super::store::Stored::open(path.as_deref().map(Path::new).unwrap()).unwrap();
    assert_eq!(again.test.get(17).unwrap(), example(17));
    assert_eq!(write(Writer::in_memory()).0.test.get(17).unwrap(), example(17));
}
