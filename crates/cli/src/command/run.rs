//! `anneal run`: read the YAML, resolve it, train, publish, and show what came out.

use serde_json::json;
use train::report::{self, Reason};
use train::{Given, Outcome};

use crate::args::{Output, RunArgs};
use crate::failure::Failure;
use crate::prepare::{self, Document, Prepared};
use crate::publish;
use crate::say;
use crate::stop;
use crate::view;
use crate::view::outcome::Published;
use crate::view::progress::Screen;

/// The main job.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let document = prepare::read(&args.workspace)?;
    let mut screen = Screen::new(args.output.output);
    let prepared =
        prepare::resolve(&document, &args.registry, &plan::Catalogue::built_in(), &mut screen)?;
    view::plan::warnings(&prepared.resolved.warnings);
    publish::check(&document.workspace, &args.registry)?;
    let outcome = train(&document, &prepared, &mut screen)?;
    let published = publish::publish(&document.workspace, &outcome, &prepared, &args.registry)?;
    write_report(&outcome, &prepared.resolved, &published)?;
    let gate = document.workspace.evaluation.gate.as_ref();
    let gate = gate.map(|gate| plan::judge(gate, &trainer_image::scores(&outcome)));
    match args.output.output {
        Output::Text if outcome.reused => {
            eprintln!("this run was complete already: nothing was trained");
            view::outcome::print(&outcome, &published, gate.as_ref());
        }
        Output::Text => view::outcome::print(&outcome, &published, gate.as_ref()),
        Output::Json => say::json_line(&json!({
            "event": "published",
            "reference": published.reference,
            "digest": published.digest,
            "outcome": outcome,
            "gate": gate,
        })),
    }
    Ok(())
}

/// Writes the report again, with what the trainer does not know: why each hyperparameter was chosen,
/// and where the result was published.
fn write_report(
    outcome: &Outcome,
    resolved: &plan::Resolved,
    published: &Published,
) -> Result<(), Failure> {
    let reasons: Vec<Reason> = resolved
        .reasons
        .iter()
        .map(|choice| Reason {
            name: choice.field.rsplit('.').next().unwrap_or_default().to_owned(),
            reason: choice.reason.clone(),
        })
        .collect();
    let reference = format!("{} ({})", published.reference, published.digest);
    report::write(&outcome.dir, &resolved.run_spec, &reasons, Some(&reference))
        .map_err(|error| Failure::from(train::RunError::from(error)))
}

fn train(
    document: &Document,
    prepared: &Prepared,
    screen: &mut Screen,
) -> Result<Outcome, Failure> {
    let stop = stop::on_signal()?;
    let spec = &prepared.resolved.run_spec;
    let read = Some(prepared.examples.clone());
    let given = Given { read, cache: trainer_image::token_cache() };
    let result = train::run_on(spec, given, &stop.asked, &mut |event| screen.show(event));
    stop.trained();
    screen.finish();
    result.map_err(|error| {
        let go_on = format!("go on with `anneal run -f {}`", document.file);
        let stopped = matches!(error, train::RunError::Stopped { .. });
        let failure = Failure::from(error);
        if stopped { failure.with_hint(go_on) } else { failure }
    })
}
