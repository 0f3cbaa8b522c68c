//! CSV and TSV with a header line. Every value is a string.

use std::io::BufRead;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::{Each, Failed, Fields, Raw, ReadError, Record};

pub(super) fn read(
    input: Box<dyn BufRead>,
    delimiter: u8,
    each: &mut Each<'_>,
) -> Result<(), Failed> {
    let separator = if delimiter == b'\t' { "tab" } else { "comma" };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter != b'\t')
        .has_headers(false)
        .flexible(true)
        .from_reader(input);
    let mut row = ByteRecord::new();
    if !next_row(&mut reader, &mut row)? {
        return Ok(());
    }
    let header = header(&row).map_err(|error| (Some(1), error))?;
    while next_row(&mut reader, &mut row)? {
        let line = row.position().map_or(0, csv::Position::line);
        let raw = match fields(&header, &row, separator) {
            Ok(fields) => Raw::Fields(fields),
            Err(error) => Raw::Broken(error),
        };
        if each(Record { line, raw }).is_break() {
            break;
        }
    }
    Ok(())
}

fn next_row(reader: &mut Reader<Box<dyn BufRead>>, row: &mut ByteRecord) -> Result<bool, Failed> {
    let line = reader.position().line();
    reader.read_byte_record(row).map_err(|error| {
        let message = error.to_string();
        let cause = match error.into_kind() {
            csv::ErrorKind::Io(cause) => cause,
            _ => std::io::Error::other(message),
        };
        (Some(line), ReadError::Io(cause))
    })
}

fn header(row: &ByteRecord) -> Result<Vec<String>, ReadError> {
    let mut names: Vec<String> = Vec::with_capacity(row.len());
    for field in row {
        let name = std::str::from_utf8(field)
            .map_err(|error| ReadError::Utf8(error.valid_up_to() + 1))?
            .trim()
            .to_owned();
        if names.contains(&name) {
            return Err(ReadError::DoubleColumn(name));
        }
        names.push(name);
    }
    if names.iter().all(String::is_empty) {
        return Err(ReadError::NoHeader);
    }
    Ok(names)
}

fn fields(
    header: &[String],
    row: &ByteRecord,
    separator: &'static str,
) -> Result<Fields, ReadError> {
    if row.len() != header.len() {
        return Err(ReadError::Columns { found: row.len(), expected: header.len(), separator });
    }
    header
        .iter()
        .zip(row)
        .map(|(name, value)| match std::str::from_utf8(value) {
            Ok(text) => Ok((name.clone(), Value::String(text.to_owned()))),
            Err(_) => Err(ReadError::ColumnUtf8 { column: name.clone() }),
        })
        .collect()
}
