//! A run while it works: a live bar on a terminal, a line now and then elsewhere, or every event as
//! JSON for scripts.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use train::event::{Activity, Event, Started, Step};

use super::format;
use crate::args::Output;
use crate::say;

/// Time between two lines about steps where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows events.
#[derive(Debug)]
pub(crate) enum Screen {
    /// Standard error is a terminal.
    Live(ProgressBar),
    /// It is a file or a pipe.
    Lines { last: Option<Instant> },
    /// Every event on the standard output.
    Json,
}

impl Screen {
    /// The one that fits to where the output goes.
    pub(crate) fn new(output: Output) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Text if stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                bar.enable_steady_tick(Duration::from_millis(200));
                Self::Live(bar)
            }
            Output::Text => Self::Lines { last: None },
        }
    }

    /// Shows that something goes on which has no events of its own.
    pub(crate) fn doing(&mut self, what: &str) {
        match self {
            Self::Live(bar) => {
                bar.set_style(style("{spinner} {msg}"));
                bar.set_message(what.to_owned());
            }
            Self::Lines { .. } => eprintln!("{what}"),
            Self::Json => {}
        }
    }

    /// Says something that stays to be read.
    pub(crate) fn note(&mut self, what: &str) {
        match self {
            Self::Live(bar) => bar.println(what),
            Self::Lines { .. } => eprintln!("{what}"),
            Self::Json => {}
        }
    }

    /// Shows how many bytes of the data have been read; scripts are told of it by a run alone.
    pub(crate) fn reading(&mut self, done: u64, total: u64) {
        match self {
            Self::Live(bar) => {
                bar.set_message(activity(Activity::ReadingData));
                bar.set_style(style(
                    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {eta} left",
                ));
                bar.set_length(total);
                bar.set_position(done);
            }
            Self::Lines { last } => {
                let since = *last.get_or_insert_with(Instant::now);
                if done == total {
                    *last = None;
                } else if since.elapsed() >= LINE_EVERY {
                    *last = Some(Instant::now());
                    let (done, total) = (format::bytes(done), format::bytes(total));
                    eprintln!("reading the data: {done} of {total}");
                }
            }
            Self::Json => {}
        }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event) {
        if matches!(self, Self::Json) {
            say::json_line(event);
            return;
        }
        match event {
            Event::Step(step) => self.step(step),
            Event::Progress { what: Activity::ReadingData, done, total } => {
                self.reading(*done, *total);
            }
            Event::Progress { what, done, total } => self.progress(*what, *done, *total),
            other => {
                if let Some(line) = sentence(other) {
                    self.line(&line);
                }
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }

    fn line(&self, line: &str) {
        match self {
            Self::Live(bar) => bar.suspend(|| eprintln!("{line}")),
            Self::Lines { .. } => eprintln!("{line}"),
            Self::Json => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match self {
            Self::Live(bar) => {
                show(bar, numbers(step), step.step, step.steps);
            }
            Self::Lines { last } => {
                let due = last.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                if due || step.step == step.steps {
                    *last = Some(Instant::now());
                    eprintln!("step {}/{}  {}", step.step, step.steps, numbers(step));
                }
            }
            Self::Json => {}
        }
    }

    fn progress(&mut self, what: Activity, done: u64, total: u64) {
        let name = activity(what);
        match self {
            Self::Live(bar) => {
                show(bar, name.to_owned(), done, total);
            }
            Self::Lines { .. } if done == 0 => eprintln!("{name}"),
            Self::Lines { .. } | Self::Json => {}
        }
    }
}

/// The message first: each change may be drawn before the next one.
fn show(bar: &ProgressBar, message: String, done: u64, total: u64) {
    bar.set_message(message);
    bar.set_style(style("{msg} {wide_bar} {pos}/{len}"));
    bar.set_length(total);
    bar.set_position(done);
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▉▊▋▌▍▎▏ ")
}

fn numbers(step: &Step) -> String {
    let left = match step.eta_seconds {
        Some(eta) => format!("{} left", format::seconds(eta)),
        None => "time left unknown".to_owned(),
    };
    let speed = format::count(step.tokens_per_second.round() as u64);
    format!("loss {:.4}  {speed} tokens/s  {left}", step.loss)
}

fn activity(what: Activity) -> &'static str {
    match what {
        Activity::ReadingData => "reading the data",
        Activity::LoadingModel => "loading the model",
        Activity::Validating => "scoring the validation examples",
        Activity::AnsweringBase => "the base model answers the test examples",
        Activity::AnsweringTuned => "the tuned model answers the test examples",
    }
}

/// What an event has to say to a person, if anything beside the bar.
fn sentence(event: &Event) -> Option<String> {
    match event {
        Event::Started(started) => Some(opening(started)),
        Event::Resumed { step, steps, checkpoint } => {
            Some(format!("resuming after step {step} of {steps} from {}", checkpoint.display()))
        }
        Event::Warning { message, hint } => Some(match hint {
            Some(hint) => format!("warning: {message}\nhint: {hint}"),
            None => format!("warning: {message}"),
        }),
        Event::Validated { step, loss, token_accuracy, best, .. } => Some(format!(
            "step {step}: validation loss {loss:.4}, token accuracy {:.1} %{}",
            token_accuracy * 100.0,
            if *best { " (best so far)" } else { "" }
        )),
        Event::StoppedEarly { step, best_step, evaluations } => Some(format!(
            "stopped early after step {step}: the validation loss did not fall in {evaluations} \
             evaluations; the best was after step {best_step}"
        )),
        Event::Saved { .. }
        | Event::Compared { .. }
        | Event::Samples { .. }
        | Event::Stopped { .. }
        | Event::Failed { .. }
        | Event::Finished(_)
        | Event::Progress { .. }
        | Event::Step(_) => None,
    }
}

fn opening(started: &Started) -> String {
    format!(
        "{} ({}): {} steps over {} examples, {} of {} parameters trained, {} threads on {}",
        started.name,
        started.revision,
        format::count(started.steps),
        format::count(started.train_examples),
        format::count(started.trainable_parameters),
        format::count(started.parameters),
        started.threads,
        started.device,
    )
}
