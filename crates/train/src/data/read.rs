//! Reads the records of one data file, each with the line it starts on.
//!
//! JSON is handed on as bytes, so that parsing can be spread over the cores ([`Raw::into_fields`]);
//! what a record means is decided elsewhere. Every reader but Parquet's streams: memory does not
//! grow with the file.

mod json;
mod parquet;
mod table;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;

use serde_json::{Map, Value};

use super::files::{Container, DataFile};
use super::meter::{Count, Counted};

pub(super) use json::json_kind;

/// The columns of one record.
pub(super) type Fields = Map<String, Value>;

/// One record, before it is understood.
#[derive(Debug)]
pub(super) struct Record {
    /// Line that the record starts on, from 1; the row in a Parquet file.
    pub(super) line: u64,
    pub(super) raw: Raw,
}

/// A record as its file holds it.
#[derive(Debug)]
pub(super) enum Raw {
    Json(Vec<u8>),
    Fields(Fields),
    Broken(ReadError),
}

/// Why a file or a record of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot read the file: {0}")]
    Io(io::Error),
    #[error("cannot read the file: it is neither plain text nor compressed with gzip or zstd")]
    Binary,
    #[error("byte {0} of the record is not UTF-8")]
    Utf8(usize),
    #[error("the value of {column:?} is not UTF-8")]
    ColumnUtf8 { column: String },
    /// `line` counts from the first line of the record, which is 0.
    #[error("broken JSON at column {column}: {reason}")]
    Json { line: u64, column: usize, reason: String },
    #[error("the record is {0}, not a JSON object")]
    NotAnObject(&'static str),
    #[error("broken JSON: {0}")]
    JsonList(&'static str),
    #[error("the row has {found} column{}, the header has {expected}", plural(*found))]
    Columns { found: usize, expected: usize, separator: &'static str },
    #[error("the header names {0:?} twice")]
    DoubleColumn(String),
    #[error("the file has no header line")]
    NoHeader,
    #[error("cannot read the Parquet file: {0}")]
    Parquet(String),
}

impl ReadError {
    /// What to do next.
    pub(super) fn hint(&self) -> String {
        let hint = match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the file is cut off; copy it again"
            }
            Self::Io(_) | Self::Parquet(_) => "check that the file is whole and readable",
            Self::Binary => "name the file after what it holds, or save it as UTF-8 text",
            Self::Utf8(_) | Self::ColumnUtf8 { .. } => {
                "save the file as UTF-8, for example with `iconv -f latin1 -t utf-8`"
            }
            Self::Json { .. } => "each record must be one whole JSON object",
            Self::NotAnObject(_) => "write each record as an object with named columns",
            Self::JsonList(_) => "the file must be one list of objects: `[{…}, {…}]`",
            Self::Columns { separator: "tab", .. } => {
                "values must not hold tabs or line breaks; save the file as CSV or JSONL if they do"
            }
            Self::Columns { .. } => "put values that hold a comma or a line break in double quotes",
            Self::DoubleColumn(_) => "give each column a name of its own",
            Self::NoHeader => "name the columns in the first line",
        };
        hint.to_owned()
    }

    /// Lines between the start of the record and the mistake.
    pub(super) fn line_offset(&self) -> u64 {
        match self {
            Self::Json { line, .. } => *line,
            _ => 0,
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl Raw {
    /// The record's columns.
    pub(super) fn into_fields(self) -> Result<Fields, ReadError> {
        match self {
            Self::Json(bytes) => json::parse(&bytes),
            Self::Fields(fields) => Ok(fields),
            Self::Broken(error) => Err(error),
        }
    }
}

/// A read that cannot go on: the line where that was noticed, and why.
pub(super) type Failed = (Option<u64>, ReadError);

/// Takes each record in the order of the file; it may stop the reading.
pub(super) type Each<'a> = dyn FnMut(Record) -> ControlFlow<()> + 'a;

/// Reads `file` to its end or until `each` breaks. An error means that the rest cannot be read.
pub(super) fn read(file: &DataFile, count: &Count, each: &mut Each<'_>) -> Result<(), Failed> {
    let io_error = |error| (None, ReadError::Io(error));
    if file.container == Container::Parquet {
        let opened = File::open(&file.path).map_err(io_error)?;
        return parquet::read(opened, count, each).map_err(|error| (None, error));
    }
    let mut input = open(file, count)?;
    match file.container {
        Container::JsonLines | Container::Json => json::read(&mut *input, file.container, each),
        Container::Csv => table::read(input, b',', each),
        Container::Tsv => table::read(input, b'\t', each),
        Container::Text => read_text(&mut *input, each),
        Container::Parquet => Ok(()),
    }
}

/// Opens a text file, decompressing it where its first bytes say that it is compressed.
fn open(file: &DataFile, count: &Count) -> Result<Box<dyn BufRead>, Failed> {
    const BUFFER: usize = 1 << 18;
    let io_error = |error| (None, ReadError::Io(error));
    let inner = File::open(&file.path).map_err(io_error)?;
    let opened = Counted { inner, count: count.clone() };
    let mut raw = BufReader::with_capacity(BUFFER, opened);
    let head = raw.fill_buf().map_err(io_error)?;
    let decoded: Box<dyn Read> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(raw).map_err(io_error)?)
    } else {
        Box::new(raw)
    };
    let mut text = BufReader::with_capacity(BUFFER, decoded);
    let head = text.fill_buf().map_err(io_error)?;
    // Text holds no zero byte; UTF-16 does, and so do archives and other binary files.
    if head.iter().take(4096).any(|byte| *byte == 0) {
        return Err((None, ReadError::Binary));
    }
    if head.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    }
    Ok(Box::new(text))
}

/// Calls `each` with the lines of `input`, without their ends, blank ones left out.
fn for_each_line(
    input: &mut dyn BufRead,
    mut each: impl FnMut(u64, Vec<u8>) -> ControlFlow<()>,
) -> Result<(), Failed> {
    let mut line = 0;
    loop {
        line += 1;
        let mut bytes = Vec::new();
        match input.read_until(b'\n', &mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err((Some(line), ReadError::Io(error))),
        }
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        if !bytes.is_empty() && each(line, bytes).is_break() {
            return Ok(());
        }
    }
}

fn read_text(input: &mut dyn BufRead, each: &mut Each<'_>) -> Result<(), Failed> {
    for_each_line(input, |line, bytes| {
        let raw = match String::from_utf8(bytes) {
            Ok(text) => Raw::Fields(Fields::from_iter([("text".to_owned(), Value::String(text))])),
            Err(error) => Raw::Broken(ReadError::Utf8(error.utf8_error().valid_up_to() + 1)),
        };
        each(Record { line, raw })
    })
}
