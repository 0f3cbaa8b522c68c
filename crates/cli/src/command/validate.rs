//! `anneal validate`: every fault, and nothing else.

use serde_json::json;

use crate::args::{Output, ValidateArgs};
use crate::failure::Failure;
use crate::prepare;
use crate::say::{self, say};
use crate::view::format;
use crate::view::progress::Screen;

/// Checks the YAML, and unless told otherwise model and data.
pub(crate) fn run(args: &ValidateArgs) -> Result<(), Failure> {
    let document = prepare::read(&args.workspace)?;
    if args.yaml_only {
        match args.output.output {
            Output::Text => say!("{}: no fault in the YAML", document.file),
            Output::Json => say::json(&json!({ "valid": true, "faults": [] })),
        }
        return Ok(());
    }
    let mut screen = Screen::new(args.output.output);
    let prepared =
        prepare::resolve(&document, &args.registry, &plan::Catalogue::built_in(), &mut screen)?;
    screen.finish();
    let data = &prepared.data;
    match args.output.output {
        Output::Text => {
            let examples = data.train.examples + data.validation.examples + data.test.examples;
            say!(
                "{}: no fault in the YAML and {} examples",
                document.file,
                format::count(examples)
            );
        }
        Output::Json => say::json(&json!({ "valid": true, "faults": [], "data": data })),
    }
    Ok(())
}
