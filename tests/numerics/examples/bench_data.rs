//! Reads data as a run does and deals them out once, and says how long both took.
//!
//! ```text
//! bench_data MODEL DATA.jsonl CACHE
//! ```

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use api::run_spec::{Columns, Data, Duplicates, Format, HeldOut, Overlong};
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use serde_json::json;
use train::data::{Dataset, Loader, LoaderState, Packing};

/// Examples of a step, and tokens of a micro-batch.
const BATCH: usize = 16;
const PACKING: Packing = Packing { most_tokens: 4096, shares_up_to: usize::MAX };

fn main() -> Result<()> {
    train::runtime::prepare();
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, rows, cache] = arguments.as_slice() else {
        bail!("name a model, a data file and a folder");
    };
    let tokenizer = Tokenizer::open(&ModelFiles::open(model)?)?;
    let bytes = std::fs::metadata(rows).context("cannot look at the data")?.len();
    let data = Data {
        train: vec![rows.clone()],
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
    };
    let start = Instant::now();
    let data = Dataset::read(&data, &tokenizer, 0, Some(cache), &mut |_, _| {}).whole()?;
    let read_seconds = start.elapsed().as_secs_f64();
    let read_peak = train::runtime::peak_memory();

    let start = Instant::now();
    let mut loader = Loader::new(&data.train, 0, LoaderState::default());
    let mut tokens = 0;
    loop {
        tokens += loader.next(BATCH, PACKING)?.tokens;
        if loader.at_epoch_end() {
            break;
        }
    }
    println!(
        "{}",
        json!({
            "bytes": bytes,
            "fromCache": data.from_cache,
            "readSeconds": read_seconds,
            "readPeak": read_peak,
            "epochSeconds": start.elapsed().as_secs_f64(),
            "examples": data.train.len(),
            "tokens": tokens,
            "peak": train::runtime::peak_memory(),
        })
    );
    Ok(())
}
