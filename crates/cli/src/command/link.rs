//! `anneal link`: where vLLM finds the model of a mounted image.

use std::os::unix::fs::symlink;

use lm::files::{ModelFiles, in_mount};
use train::ExitClass;

use crate::args::LinkArgs;
use crate::failure::Failure;

/// Makes the link; one that was made before is replaced.
pub(crate) fn run(args: &LinkArgs) -> Result<(), Failure> {
    let model = in_mount(&args.mount);
    // What is no model is told here, before vLLM tells it in its own words.
    ModelFiles::open(&model).map_err(|error| {
        Failure::of(ExitClass::Configuration, &error)
            .with_hint("an image holds its base model below /models or /data")
    })?;
    let fresh = args.link.with_extension("new");
    let made = match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => symlink(&model, &fresh).and_then(|()| std::fs::rename(&fresh, &args.link)),
    };
    made.map_err(|error| {
        Failure::new(
            ExitClass::Io,
            format!("cannot make the link {}: {error}", args.link.display()),
        )
    })
}
