//! Spreads the work on a file's records over the cores, and hands the results on in order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::files::DataFile;
use super::meter::{Count, Meter};
use super::read::{self, Failed, Record};

/// Records that travel between threads together.
const CHUNK: usize = 64;

/// Applies `work` to each record of `file`, on as many threads as `workers`, and calls `take` with each
/// result in the file's order. `meter` is told how far it is.
pub(super) fn for_each_record<T: Send>(
    file: &DataFile,
    workers: usize,
    meter: &mut Meter<'_>,
    work: &(dyn Fn(Record) -> T + Sync),
    take: &mut dyn FnMut(T),
) -> Result<(), Failed> {
    let (send_records, records) = mpsc::sync_channel(2 * workers);
    let (send_results, results) = mpsc::sync_channel(2 * workers);
    let records = Mutex::new(records);
    let Meter { count, teller } = meter;
    let count = &*count;
    thread::scope(|scope| {
        let reader = scope.spawn(move || read_chunks(file, count, &send_records));
        for _ in 0..workers {
            let send_results = send_results.clone();
            let records = &records;
            scope.spawn(move || work_on_chunks(records, work, &send_results));
        }
        drop(send_results);
        take_in_order(&results, take, &mut || teller.at(count));
        match reader.join() {
            Ok(end) => end,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn read_chunks(
    file: &DataFile,
    count: &Count,
    to: &SyncSender<(usize, Vec<Record>)>,
) -> Result<(), Failed> {
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut number = 0;
    let end = read::read(file, count, &mut |record| {
        chunk.push(record);
        if chunk.len() < CHUNK {
            return ControlFlow::Continue(());
        }
        let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
        let sent = to.send((number, full));
        number += 1;
        // Nobody listens only when a worker has panicked; the scope passes that on.
        if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let _ = to.send((number, chunk));
    end
}

fn work_on_chunks<T>(
    from: &Mutex<Receiver<(usize, Vec<Record>)>>,
    work: &(dyn Fn(Record) -> T + Sync),
    to: &SyncSender<(usize, Vec<T>)>,
) {
    loop {
        let next = from.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, records)) = next else { return };
        let results = records.into_iter().map(work).collect();
        if to.send((number, results)).is_err() {
            return;
        }
    }
}

fn take_in_order<T>(
    results: &Receiver<(usize, Vec<T>)>,
    take: &mut dyn FnMut(T),
    after_each: &mut dyn FnMut(),
) {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for (number, result) in results {
        waiting.insert(number, result);
        while let Some(result) = waiting.remove(&next) {
            result.into_iter().for_each(&mut *take);
            next += 1;
        }
        after_each();
    }
}
