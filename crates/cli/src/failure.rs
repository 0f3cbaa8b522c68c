//! How a command fails, and the one place that prints it: what we were doing, why it failed, every
//! fault, and what to do next.

use std::error::Error;
use std::fmt::Write as _;

use api::Fault;
use serde_json::{Value, json};
use train::ExitClass;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Decides the exit code.
    pub(crate) class: ExitClass,
    /// What could not be done: lower case, no full stop.
    pub(crate) message: String,
    /// Every mistake that was found, at most as many as are shown.
    pub(crate) faults: Vec<Fault>,
    /// How many there are in all.
    pub(crate) fault_count: u64,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a list of faults.
    pub(crate) fn new(class: ExitClass, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { class, message, faults: Vec::new(), fault_count: 0, hint: None }
    }

    /// A failure with its chain of causes. Texts that repeat their cause are taken once.
    pub(crate) fn of(class: ExitClass, error: &dyn Error) -> Self {
        Self::new(class, oci::with_causes(error))
    }

    /// A mistake in the user's data or configuration.
    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ExitClass::Configuration, message)
    }

    /// Mistakes in the user's data or configuration, all at once.
    pub(crate) fn faults(subject: &str, faults: Vec<Fault>, fault_count: u64) -> Self {
        let shown = faults.len() as u64;
        let count = fault_count.max(shown);
        let message = match count {
            1 => format!("1 fault in {subject}"),
            _ => format!("{count} faults in {subject}"),
        };
        Self { class: ExitClass::Configuration, message, faults, fault_count: count, hint: None }
    }

    /// The same, with what to do next.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with file and line on each fault.
    pub(crate) fn located(mut self, locate: impl Fn(Fault) -> Fault) -> Self {
        self.faults = self.faults.into_iter().map(locate).collect();
        self
    }

    /// The text for a person: one `error:`, a line or two for each fault, one `hint:`.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for fault in &self.faults {
            for line in fault.to_string().lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        let hidden = self.fault_count - self.faults.len() as u64;
        if hidden > 0 {
            let _ = writeln!(text, "  and {hidden} more");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }

    /// The same for a script.
    pub(crate) fn json(&self) -> Value {
        json!({
            "error": self.message,
            "class": self.class,
            "exitCode": self.class.code(),
            "faults": self.faults,
            "faultCount": self.fault_count,
            "hint": self.hint,
        })
    }
}

impl From<train::RunError> for Failure {
    fn from(error: train::RunError) -> Self {
        let failure = Self::of(error.class(), &error);
        Self { hint: error.hint(), ..failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_and_hints_stand_on_their_own_lines() {
        let fault = Fault {
            file: Some("a.yaml".into()),
            line: Some(3),
            field: Some("spec.datta".into()),
            message: "is not a known field".into(),
            hint: Some("did you mean `data`?".into()),
        };
        let failure = Failure::faults("a.yaml", vec![fault], 5).with_hint("correct the file");
        assert_eq!(
            failure.text(),
            "error: 5 faults in a.yaml\n  a.yaml:3: spec.datta: is not a known field\n    hint: did \
             you mean `data`?\n  and 4 more\nhint: correct the file\n"
        );
        assert_eq!(failure.json()["exitCode"], 10);
    }
}
