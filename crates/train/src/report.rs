//! `report.html`: what a run did and whether it helped, in one file that loads nothing from elsewhere.
//! It is a pure function of the run's events and specification.

mod chart;
mod sections;
mod text;

use std::path::Path;

use api::RunSpec;
use serde::{Deserialize, Serialize};

use crate::event::{self, Compared, Event, Finished, Record, Sample, Started, Step};
use crate::files::{self, FileError};

/// What the report is made from.
#[derive(Debug)]
pub struct Report<'a> {
    pub spec: &'a RunSpec,
    pub records: &'a [Record],
    /// Why each hyperparameter that the user left open has its value.
    pub reasons: &'a [Reason],
    /// Where the adapter was pushed, with its digest.
    pub published: Option<&'a str>,
}

/// Why a hyperparameter has its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The field's name in the run specification, such as `learningRate`.
    pub name: String,
    pub reason: String,
}

/// The events, sorted by kind.
struct Story<'a> {
    started: Option<&'a Started>,
    steps: Vec<&'a Step>,
    /// Step and loss.
    validations: Vec<(f64, f64)>,
    compared: Option<&'a Compared>,
    samples: &'a [Sample],
    notes: Vec<String>,
    finished: Option<&'a Finished>,
}

/// Writes `report.html` into a run's folder, from the `events.jsonl` that is there.
pub fn write(
    dir: &Path,
    spec: &RunSpec,
    reasons: &[Reason],
    published: Option<&str>,
) -> Result<(), FileError> {
    let records = event::read(&dir.join("events.jsonl"))?;
    let html = render(&Report { spec, records: &records, reasons, published });
    files::write_atomic(&dir.join("report.html"), html.as_bytes())
}

/// The page.
pub fn render(report: &Report<'_>) -> String {
    let story = Story::of(report.records);
    let mut page = format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <title>{} · Anneal</title>\n<style>\n{}</style>\n<main>\n",
        text::escape(&report.spec.name),
        include_str!("report/style.css"),
    );
    page.push_str(&sections::head(report, &story));
    page.push_str(&sections::comparison(&story));
    page.push_str(&sections::curves(&story));
    page.push_str(&sections::samples(&story));
    page.push_str(&sections::hyperparameters(report));
    page.push_str(&sections::adapter(report, &story));
    page.push_str(&sections::notes(&story));
    page.push_str("<footer>Written by Anneal.</footer>\n</main>\n</html>\n");
    page
}

impl<'a> Story<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut story = Self {
            started: None,
            steps: Vec::new(),
            validations: Vec::new(),
            compared: None,
            samples: &[],
            notes: Vec::new(),
            finished: None,
        };
        for record in records {
            story.add(&record.event);
        }
        story
    }

    fn add(&mut self, event: &'a Event) {
        match event {
            Event::Started(started) => self.started = Some(started),
            Event::Step(step) => self.steps.push(step),
            Event::Validated { step, loss, .. } => self.validations.push((*step as f64, *loss)),
            Event::Compared(compared) => self.compared = Some(compared),
            Event::Samples { samples } => self.samples = samples,
            Event::Finished(finished) => self.finished = Some(finished),
            Event::Resumed { step, .. } => {
                self.notes.push(format!("Resumed from the checkpoint after step {step}."));
            }
            Event::Warning { message, .. } => self.notes.push(message.clone()),
            Event::StoppedEarly { step, best_step, evaluations } => self.notes.push(format!(
                "Stopped early after step {step}: {evaluations} validations brought nothing \
                 better than step {best_step}."
            )),
            Event::Stopped { step, steps } => {
                self.notes.push(format!("Stopped by the user after step {step} of {steps}."));
            }
            Event::Failed { message, .. } => self.notes.push(format!("Failed: {message}.")),
            Event::Progress { .. } | Event::Saved { .. } => {}
        }
    }
}
