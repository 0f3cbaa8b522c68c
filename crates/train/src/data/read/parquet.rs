//! Parquet, through the crate's row interface, which needs no Arrow.

use std::cell::Cell;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Number, Value};

use super::super::meter::Count;
use super::{Each, Fields, Raw, ReadError, Record};

/// Some kinds of damage make the parquet crate panic; they are errors here.
pub(super) fn read(file: File, count: &Count, each: &mut Each<'_>) -> Result<(), ReadError> {
    quietly(|| read_rows(file, count, each))
        .unwrap_or_else(|| Err(ReadError::Parquet("it is damaged".to_owned())))
}

fn read_rows(file: File, count: &Count, each: &mut Each<'_>) -> Result<(), ReadError> {
    let broken = |error: parquet::errors::ParquetError| ReadError::Parquet(error.to_string());
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    // Columns are read apart, so that each row counts as much as any other.
    let rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
    for (index, row) in reader.get_row_iter(None).map_err(broken)?.enumerate() {
        let raw = fields(row.map_err(broken)?).map_or_else(Raw::Broken, Raw::Fields);
        count.add(bytes / rows.max(1));
        if each(Record { line: index as u64 + 1, raw }).is_break() {
            break;
        }
    }
    Ok(())
}

/// What `work` returns, or none where it panics; then nothing is printed.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.ok()
}

fn fields(row: Row) -> Result<Fields, ReadError> {
    let columns = row.into_columns().into_iter();
    columns.map(|(name, field)| value(&name, field).map(|value| (name, value))).collect()
}

/// `name` is the column, for messages.
fn value(name: &str, field: Field) -> Result<Value, ReadError> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => Value::Bool(flag),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => float(f64::from(number)),
        Field::Float(number) => float(f64::from(number)),
        Field::Double(number) => float(number),
        Field::Str(text) => Value::String(text),
        // Old writers store strings as plain binary.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => return Err(ReadError::ColumnUtf8 { column: name.to_owned() }),
        },
        Field::Group(row) => Value::Object(fields(row)?),
        Field::ListInternal(list) => {
            let elements = list.elements().iter().cloned();
            Value::Array(elements.map(|element| value(name, element)).collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let pairs =
                entries.map(|(key, entry)| Ok((key_text(key), value(name, entry.clone())?)));
            Value::Object(pairs.collect::<Result<_, _>>()?)
        }
        Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => Value::String(field.to_string()),
    })
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn key_text(key: &Field) -> String {
    match key {
        Field::Str(text) => text.clone(),
        other => other.to_string(),
    }
}
