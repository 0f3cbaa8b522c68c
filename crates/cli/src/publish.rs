//! The result of a run as an OCI image: into the registry that the workspace names, or else as a
//! layout into the run's folder.

use api::valid::Workspace;
use oci::Target;
use train::Outcome;
use trainer_image::Origin;

use crate::args::RegistryArgs;
use crate::failure::Failure;
use crate::prepare::Prepared;
use crate::sources::{registry_failure, registry_options};
use crate::view::outcome::Published;

/// Finds out before training whether the registry would take the result.
pub(crate) fn check(workspace: &Workspace, registry: &RegistryArgs) -> Result<(), Failure> {
    let Some(image) = &workspace.output.image else { return Ok(()) };
    let target = parse(&image.to_string())?;
    oci::blocking::check_push(&target, &registry_options(registry))
        .map_err(|e| registry_failure(&e))
}

/// Packs what the run left and puts it where the workspace says.
pub(crate) fn publish(
    workspace: &Workspace,
    outcome: &Outcome,
    prepared: &Prepared,
    registry: &RegistryArgs,
) -> Result<Published, Failure> {
    let spec = &prepared.resolved.run_spec;
    let target = match &workspace.output.image {
        Some(image) if image.tag.is_some() => parse(&image.to_string())?,
        Some(image) => parse(&format!("{image}:{}", spec.revision))?,
        None => Target::layout(outcome.dir.join("image"), &spec.revision),
    };
    let origin = Origin { spec, data_digest: Some(&prepared.data.digest) };
    let pushed = trainer_image::publish(outcome, &origin, &target, &registry_options(registry))
        .map_err(|error| registry_failure(&error))?;
    Ok(Published { reference: pushed.target.to_string(), digest: pushed.digest })
}

fn parse(text: &str) -> Result<Target, Failure> {
    text.parse().map_err(|error| registry_failure(&oci::Error::Reference(error)))
}
