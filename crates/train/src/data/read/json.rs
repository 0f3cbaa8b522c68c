//! JSON records: one object per line, a list of objects, or objects one after another.

use std::io::BufRead;
use std::ops::ControlFlow;

use serde_json::Value;

use super::{Each, Failed, Fields, Raw, ReadError, Record, for_each_line};
use crate::data::files::Container;

/// Reads either layout; which one it is goes by the first byte, since many files named `.json`
/// hold one object per line.
pub(super) fn read(
    input: &mut dyn BufRead,
    container: Container,
    each: &mut Each<'_>,
) -> Result<(), Failed> {
    let line = skip_blank(input)?;
    let first = input.fill_buf().map_err(|error| (Some(line), ReadError::Io(error)))?.first();
    let list = first == Some(&b'[');
    if container == Container::JsonLines && !list {
        return for_each_line(input, |at, bytes| {
            each(Record { line: at + line - 1, raw: Raw::Json(bytes) })
        });
    }
    let mut scanner = Scanner { input, line, value: Vec::new(), each };
    if list { scanner.read_list() } else { scanner.read_sequence() }
}

/// Parses one object.
pub(super) fn parse(bytes: &[u8]) -> Result<Fields, ReadError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| ReadError::Utf8(error.valid_up_to() + 1))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(ReadError::NotAnObject(json_kind(&other))),
        Err(error) => {
            let all = error.to_string();
            let reason =
                all.rsplit_once(" at line ").map_or(&*all, |(reason, _)| reason).to_owned();
            let line = error.line().saturating_sub(1) as u64;
            Err(ReadError::Json { line, column: error.column().max(1), reason })
        }
    }
}

/// The kind of a value with its article, for messages.
pub(in crate::data) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Passes over white space before the first value; the line it ends on, from 1.
fn skip_blank(input: &mut dyn BufRead) -> Result<u64, Failed> {
    let mut line = 1;
    loop {
        let buffer = input.fill_buf().map_err(|error| (Some(line), ReadError::Io(error)))?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let done = blank < buffer.len() || buffer.is_empty();
        line += count_newlines(&buffer[..blank]);
        input.consume(blank);
        if done {
            return Ok(line);
        }
    }
}

#[expect(clippy::naive_bytecount, reason = "not worth a dependency: parsing takes far longer")]
fn count_newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Cuts a stream into JSON values by their brackets and quotes alone; whether each value is right
/// is found when it is parsed.
struct Scanner<'a, 'b> {
    input: &'a mut dyn BufRead,
    line: u64,
    value: Vec<u8>,
    each: &'a mut Each<'b>,
}

impl Scanner<'_, '_> {
    /// `[value, value, …]`
    fn read_list(&mut self) -> Result<(), Failed> {
        self.next_byte()?;
        let mut first = true;
        loop {
            match self.peek()? {
                None => return Err(self.broken("the list is not closed")),
                Some(b']') => {
                    self.next_byte()?;
                    break;
                }
                Some(b',') if !first => {
                    self.next_byte()?;
                    // A comma before the closing bracket is common and does no harm.
                    if self.peek()? == Some(b']') {
                        continue;
                    }
                }
                Some(_) if !first => return Err(self.broken("a comma is missing between records")),
                Some(_) => {}
            }
            first = false;
            if self.take_value()?.is_break() {
                return Ok(());
            }
        }
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(self.broken("something follows the end of the list")),
        }
    }

    /// `value value …`
    fn read_sequence(&mut self) -> Result<(), Failed> {
        while self.peek()?.is_some() {
            if self.take_value()?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn broken(&self, reason: &'static str) -> Failed {
        (Some(self.line), ReadError::JsonList(reason))
    }

    /// Hands on the value that starts here.
    fn take_value(&mut self) -> Result<ControlFlow<()>, Failed> {
        let line = self.line;
        self.value.clear();
        let whole = self.scan_value()?;
        let bytes = std::mem::take(&mut self.value);
        if !whole {
            return Err((Some(line), ReadError::JsonList("the file ends inside this record")));
        }
        Ok((self.each)(Record { line, raw: Raw::Json(bytes) }))
    }

    /// Copies one value into `self.value`; false when the input ends before the value does.
    fn scan_value(&mut self) -> Result<bool, Failed> {
        let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
        loop {
            let line = self.line;
            let buffer =
                self.input.fill_buf().map_err(|error| (Some(line), ReadError::Io(error)))?;
            if buffer.is_empty() {
                return Ok(depth == 0 && !in_string && !self.value.is_empty());
            }
            let (mut used, mut done) = (0, false);
            for byte in buffer {
                if in_string {
                    in_string = escaped || *byte != b'"';
                    escaped = !escaped && *byte == b'\\';
                } else {
                    match byte {
                        b'"' => in_string = true,
                        b'{' | b'[' => depth += 1,
                        // The end of the list around a bare number or word.
                        b',' | b']' | b'}' if depth == 0 => {
                            done = true;
                            break;
                        }
                        b'}' | b']' => depth -= 1,
                        byte if depth == 0 && byte.is_ascii_whitespace() => {
                            done = true;
                            break;
                        }
                        _ => {}
                    }
                }
                used += 1;
                if depth == 0 && !in_string && matches!(byte, b'}' | b']' | b'"') {
                    done = true;
                    break;
                }
            }
            self.value.extend_from_slice(&buffer[..used]);
            self.line += count_newlines(&buffer[..used]);
            self.input.consume(used);
            if done {
                // A stray bracket where a value should start: take it, so that the scan moves on
                // and the parser names it.
                if self.value.is_empty() {
                    let stray = self.next_byte()?;
                    self.value.extend(stray);
                }
                return Ok(true);
            }
        }
    }

    fn next_byte(&mut self) -> Result<Option<u8>, Failed> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.input.consume(1);
        }
        Ok(byte)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<Option<u8>, Failed> {
        loop {
            let line = self.line;
            let buffer =
                self.input.fill_buf().map_err(|error| (Some(line), ReadError::Io(error)))?;
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if blank == 0 {
                return Ok(buffer.first().copied());
            }
            self.line += count_newlines(&buffer[..blank]);
            self.input.consume(blank);
        }
    }
}
