//! The smallest memory of a GPU that holds a run, whatever products there are: what preflight tells, so
//! that the operator can choose by its own catalogue and by what the cluster has.

use api::run_spec::Device;
use api::workspace::Smaller;
use api::{Fault, GpuFacts, Workspace};

use crate::inputs::Inputs;
use crate::resolve::{Resolved, resolve};
use crate::smaller::smaller;

/// Steps of the answer.
const STEP: u64 = 256 << 20;
/// More than any GPU has.
const MOST: u64 = 1 << 40;

/// What a run is on the smallest GPU that holds it, and the bytes of that GPU.
#[derive(Clone, Debug)]
pub struct Least {
    pub memory: u64,
    pub resolved: Resolved,
}

/// What a run asks of a GPU.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Bytes of the smallest one that holds it.
    pub memory: u64,
    /// Changes with which a smaller one would, where nodes are asked for.
    pub smaller: Vec<Smaller>,
}

/// The run as preflight tells of it: on the GPU that it will get where it asks for some, else on this
/// machine.
///
/// # Errors
/// What is wrong with the run on any GPU, or on this machine.
pub fn preflight(
    workspace: &Workspace,
    inputs: &Inputs,
) -> Result<(Resolved, Option<Asked>), Vec<Fault>> {
    if workspace.compute.gpus == 0 || workspace.compute.device == Device::Cpu {
        return Ok((resolve(workspace, inputs)?, None));
    }
    let Least { memory, resolved } = least(workspace, inputs)?;
    let smaller = match workspace.compute.nodes {
        Some(_) => smaller(workspace, inputs, memory),
        None => Vec::new(),
    };
    Ok((resolved, Some(Asked { memory, smaller })))
}

/// The smallest GPU that holds the run. That a larger one holds it too is what makes the search right.
///
/// # Errors
/// What is wrong with the run on any GPU.
pub fn least(workspace: &Workspace, inputs: &Inputs) -> Result<Least, Vec<Fault>> {
    let (mut below, mut steps) = (0, MOST / STEP);
    let mut resolved = on(workspace, inputs, MOST)?;
    while steps - below > 1 {
        let middle = below.midpoint(steps);
        match on(workspace, inputs, middle * STEP) {
            Ok(found) => (steps, resolved) = (middle, found),
            Err(_) => below = middle,
        }
    }
    Ok(Least { memory: steps * STEP, resolved })
}

fn on(workspace: &Workspace, inputs: &Inputs, memory: u64) -> Result<Resolved, Vec<Fault>> {
    let mut workspace = workspace.clone();
    workspace.compute.device = Device::Cuda;
    // It bounds the memory of the machine.
    workspace.compute.memory = None;
    let mut inputs = inputs.clone();
    inputs.machine.gpu = Some(GpuFacts { product: "GPU".to_owned(), memory });
    resolve(&workspace, &inputs)
}
