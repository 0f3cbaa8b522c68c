//! `anneal plan`: what a run would do, and why.

use serde_json::json;

use crate::args::{Output, PlanArgs};
use crate::failure::Failure;
use crate::prepare::{self, Examples};
use crate::say;
use crate::view;
use crate::view::progress::Screen;

/// Resolves the workspace and shows the result.
pub(crate) fn run(args: &PlanArgs) -> Result<(), Failure> {
    let document = prepare::read(&args.workspace)?;
    let mut screen = Screen::new(args.output.output);
    let prepared = prepare::resolve(&document, Examples::Counted, &args.registry, &mut screen)?;
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
