//! `anneal plan`: what a run would do, and why.

use std::path::Path;

use plan::Catalogue;
use serde_json::json;

use crate::args::{Output, PlanArgs};
use crate::failure::Failure;
use crate::prepare;
use crate::say;
use crate::view;
use crate::view::progress::Screen;

/// Resolves the workspace and shows the result.
pub(crate) fn run(args: &PlanArgs) -> Result<(), Failure> {
    let document = prepare::read(&args.workspace)?;
    let catalogue = catalogue(args.gpu_catalogue.as_deref())?;
    let mut screen = Screen::new(args.output.output);
    let prepared = prepare::resolve(&document, &args.registry, &catalogue, &mut screen)?;
    screen.finish();
    match args.output.output {
        Output::Text => view::plan::print(&prepared),
        Output::Json => say::json(&json!({
            "runSpec": prepared.resolved.run_spec,
            "reasons": prepared.resolved.reasons,
            "estimate": prepared.resolved.estimate,
            "gpu": prepared.sizing,
            "model": prepared.model,
            "data": prepared.data,
            "machine": prepared.machine,
        })),
    }
    Ok(())
}

/// The built-in GPU products with those of a file.
fn catalogue(file: Option<&Path>) -> Result<Catalogue, Failure> {
    let all = Catalogue::built_in();
    let Some(file) = file else { return Ok(all) };
    let fail = |why: &dyn std::fmt::Display| {
        let file = file.display();
        Failure::configuration(format!("cannot use the GPU catalogue `{file}`: {why}"))
            .with_hint("compare it with crates/plan/data/gpus.json")
    };
    let text = std::fs::read_to_string(file).map_err(|error| fail(&error))?;
    Ok(all.with(Catalogue::read(&text).map_err(|error| fail(&error))?))
}
