//! An image on its way: a bar on a terminal, and a line for each attempt that failed.

use std::io::{IsTerminal as _, stderr};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use oci::{Event, Options};

use crate::args::Output;
use crate::view::format;

/// Shows a transfer until it is dropped.
#[derive(Debug)]
pub(crate) struct Transfer(ProgressBar);

impl Transfer {
    /// Options that show what happens, beside those given.
    pub(crate) fn shown(options: Options, what: &str, output: Output) -> (Options, Self) {
        let bar = match output {
            Output::Text if stderr().is_terminal() => ProgressBar::new(0),
            Output::Text | Output::Json => ProgressBar::hidden(),
        };
        let style = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_message(what.to_owned());
        let shown = bar.clone();
        let on_event = Arc::new(move |event: &Event| show(&shown, event));
        (Options { on_event, ..options }, Self(bar))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn show(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Progress { done, total } => {
            bar.set_length(*total);
            bar.set_position(*done);
        }
        Event::Retry { attempt, attempts, wait, reason } => bar.suspend(|| {
            let wait = format::seconds(wait.as_secs_f64());
            eprintln!("{reason}; attempt {} of {attempts} in {wait}", attempt + 1);
        }),
        Event::Present { .. } => {}
    }
}
