//! Checkpoints are whole or not used.

use std::fs;
use std::path::Path;

use crate::checkpoint::{Best, Checkpoints, State};
use crate::data::LoaderState;
use crate::files::FileError;

fn at(step: u64) -> State {
    State { step, loader: LoaderState { epoch: 0, cursor: step as usize }, ..State::default() }
}

fn save(checkpoints: &Checkpoints, state: &State) {
    let write = |folder: &Path| -> Result<(), FileError> {
        fs::create_dir(folder.join("adapter")).unwrap();
        fs::write(folder.join("adapter/weights"), vec![state.step as u8; 1000]).unwrap();
        Ok(())
    };
    checkpoints.save(state, write).unwrap();
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path().to_owned(), "run".to_owned(), 2);
    for step in 1..=5 {
        let best = (step >= 2).then_some(Best { step: 2, loss: 1.0 });
        save(&checkpoints, &State { best, ..at(step) });
    }
    assert_eq!(names(folder.path()), ["step-00000002", "step-00000004", "step-00000005"]);
    let (newest, skipped) = checkpoints.newest().unwrap();
    assert_eq!(newest.unwrap().state.step, 5);
    assert!(skipped.is_empty());
}

#[test]
fn a_truncated_changed_or_foreign_checkpoint_is_skipped_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path().to_owned(), "run".to_owned(), 9);
    for step in 1..=5 {
        save(&checkpoints, &at(step));
    }
    let file = |step, name| checkpoints.path(step).join(name);
    fs::write(file(5, "adapter/weights"), vec![5; 900]).unwrap();
    fs::write(file(4, "adapter/weights"), vec![9; 1000]).unwrap();
    fs::write(file(3, "manifest.json"), "{\"version\":1,").unwrap();
    fs::remove_file(file(2, "state.json")).unwrap();

    let (newest, skipped) = checkpoints.newest().unwrap();
    assert_eq!(newest.unwrap().state, at(1));
    let why: Vec<&str> = skipped.iter().map(|skipped| skipped.why.as_str()).collect();
    assert_eq!(why[0], "`adapter/weights` has 900 bytes and not 1000");
    assert_eq!(why[1], "`adapter/weights` has changed: its SHA-256 differs");
    assert!(why[2].contains("EOF while parsing"), "{}", why[2]);
    assert_eq!(why[3], "`state.json` is missing");

    for skipped in &skipped {
        checkpoints.set_aside(skipped).unwrap();
    }
    assert_eq!(checkpoints.newest().unwrap().1.len(), 0);
    let other = Checkpoints::new(folder.path().to_owned(), "other".to_owned(), 9);
    let (newest, skipped) = other.newest().unwrap();
    assert!(newest.is_none());
    assert_eq!(skipped[0].why, "it belongs to a run with another specification");
}

#[test]
fn a_failed_save_leaves_the_former_ones() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path().to_owned(), "run".to_owned(), 1);
    save(&checkpoints, &at(1));
    let full = |folder: &Path| -> Result<(), FileError> {
        fs::write(folder.join("half"), "x").unwrap();
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(FileError::of("write", folder)(source))
    };
    let error = checkpoints.save(&at(2), full).unwrap_err();
    assert!(error.hint().starts_with("free some space"));
    assert_eq!(names(folder.path()), ["step-00000001"]);
    assert_eq!(checkpoints.newest().unwrap().0.unwrap().state.step, 1);
}
