//! The trainer in a container: reads one `RunSpec`, trains, pushes the adapter, and ends with a
//! message and an exit code. The README beside this is the contract.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use api::RunSpec;
use oci::{Options, Pushed, Target};
use serde_json::{Value, json};
use train::{ExitClass, Given, Outcome};
use trainer_image::pod::{self, Ended, Role};
use trainer_image::{Origin, machine, message};

/// The part of the message for the cause, in characters.
const CAUSE_LIMIT: usize = 1000;

/// Class, text and next step of a failure.
type Failure = (ExitClass, String, Option<String>);

fn main() -> ExitCode {
    train::runtime::prepare();
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    if let Some(file) = std::env::var_os("ANNEAL_WORKSPACE") {
        return in_pod(Path::new(&file));
    }
    let (code, message) = match run() {
        Ok((outcome, pushed)) => (0, succeeded(&outcome, pushed.as_ref())),
        Err((class, cause, hint)) => {
            tracing::error!(%cause, ?hint, "the run failed");
            let cause: String = cause.chars().take(CAUSE_LIMIT).collect();
            let row =
                json!({"outcome": "failed", "class": class, "cause": cause, "nextStep": hint});
            (class.code(), row)
        }
    };
    message::write(&message.to_string());
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Does what the operator started this pod for: `preflight`, or else training.
fn in_pod(file: &Path) -> ExitCode {
    let is_preflight = std::env::args().nth(1).is_some_and(|word| word == "preflight");
    let role = if is_preflight { Role::Preflight } else { Role::Train };
    let (code, message) = match pod::run(role, file, machine::facts()) {
        Ok(message) => (0, message),
        Err(Ended { class, message }) => {
            tracing::error!(cause = message.message, hint = ?message.hint, "the run failed");
            (class.code(), message)
        }
    };
    message::write(&message.to_message());
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn run() -> Result<(Outcome, Option<Pushed>), Failure> {
    let spec = read(Path::new(&variable("ANNEAL_RUN_SPEC", "/etc/anneal/run.json")))?;
    let target = std::env::var("ANNEAL_OUTPUT").ok().map(|text| text.parse::<Target>()).transpose();
    let target = target.map_err(|error| refused(&oci::Error::Reference(error)))?;
    let options = Options {
        ca_file: std::env::var_os("ANNEAL_CA_FILE").map(PathBuf::from),
        ..Options::default()
    };
    if let Some(target) = &target {
        oci::blocking::check_push(target, &options).map_err(|error| refused(&error))?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| (ExitClass::Internal, error.to_string(), None))?;
    }
    let given = Given { read: None, cache: trainer_image::token_cache() };
    let outcome = train::run_on(&spec, given, &stop, &mut |event| {
        tracing::info!(event = %serde_json::to_string(event).unwrap_or_default());
    })
    .map_err(|error| (error.class(), error.to_string(), error.hint()))?;
    let origin = Origin { spec: &spec, data_digest: None };
    let pushed = target
        .map(|target| trainer_image::publish(&outcome, &origin, &target, &options))
        .transpose()
        .map_err(|error| refused(&error))?;
    Ok((outcome, pushed))
}

fn read(path: &Path) -> Result<RunSpec, Failure> {
    let fault = |reason: String| {
        let text = format!("cannot read the run specification `{}`: {reason}", path.display());
        (ExitClass::Configuration, text, Some("name the file in ANNEAL_RUN_SPEC".to_owned()))
    };
    let bytes = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))
}

fn refused(error: &oci::Error) -> Failure {
    (trainer_image::class(error), error.to_string(), error.hint())
}

fn succeeded(outcome: &Outcome, pushed: Option<&Pushed>) -> Value {
    let scores = outcome.compared.as_ref().map(|compared| &compared.rows);
    let pushed = pushed.map(|p| json!({"reference": p.target.to_string(), "digest": p.digest}));
    json!({"outcome": "succeeded", "adapter": pushed, "steps": outcome.finished.steps, "scores": scores})
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
