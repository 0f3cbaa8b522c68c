//! `events.jsonl` survives a crash.

use std::io::Write;

use crate::event::{self, Event, EventLog};

fn saved(step: u64) -> Event {
    Event::Saved { step, path: format!("checkpoints/step-{step}").into() }
}

#[test]
fn a_torn_last_line_is_left_out_and_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut log = EventLog::open(&path, u64::MAX).unwrap();
    log.append(&saved(1)).unwrap();
    log.append(&saved(2)).unwrap();
    drop(log);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"at\":3,\"event\":\"sav").unwrap();

    let steps = |records: Vec<event::Record>| -> Vec<Event> {
        records.into_iter().map(|record| record.event).collect()
    };
    assert_eq!(steps(event::read(&path).unwrap()), [saved(1), saved(2)]);
    EventLog::open(&path, u64::MAX).unwrap().append(&saved(3)).unwrap();
    assert_eq!(steps(event::read(&path).unwrap()), [saved(1), saved(2), saved(3)]);
}

#[test]
fn the_file_is_cut_back_to_what_a_checkpoint_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut log = EventLog::open(&path, 0).unwrap();
    log.append(&saved(1)).unwrap();
    let length = log.sync().unwrap();
    log.append(&saved(2)).unwrap();
    drop(log);

    EventLog::open(&path, length).unwrap().append(&saved(7)).unwrap();
    let events: Vec<Event> = event::read(&path).unwrap().into_iter().map(|r| r.event).collect();
    assert_eq!(events, [saved(1), saved(7)]);
}

#[test]
fn progress_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut log = EventLog::open(&path, 0).unwrap();
    let what = event::Activity::Validating;
    log.append(&Event::Progress { what, done: 1, total: 2 }).unwrap();
    assert!(event::read(&path).unwrap().is_empty());
}
