//! Writing to the standard output, where a reader that has gone away (as with `| head`) ends the
//! program quietly.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

use serde::Serialize;

/// Writes a text as it is.
pub(crate) fn print(text: &Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let written = out.write_fmt(*text).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        signal_hook::low_level::exit(0);
    }
}

/// Writes a line.
macro_rules! say {
    ($($part:tt)*) => {{
        $crate::say::print(&format_args!("{}\n", format_args!($($part)*)))
    }};
}
pub(crate) use say;

/// Writes a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("\"{error}\""));
    say!("{text}");
}

/// Writes a value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) {
    let text = serde_json::to_string(value).unwrap_or_else(|error| format!("\"{error}\""));
    say!("{text}");
}
