//! What cannot work, whatever is chosen: faults of the data and numbers that the model does not allow.

use api::run_spec::{Device, Format, Metric};
use api::{Fault, SplitFacts, Workspace, valid};

use super::fault;
use super::numbers::grouped;
use crate::inputs::Inputs;

pub(super) fn facts(workspace: &Workspace, inputs: &Inputs) -> Vec<Fault> {
    let mut faults = data_faults(inputs);
    if faults.is_empty() {
        faults.extend(splits(workspace, inputs));
    }
    faults.extend(context(workspace, inputs));
    faults.extend(answers(workspace, inputs));
    faults.extend(quantized(workspace, inputs));
    if workspace.compute.device == Device::Cuda && inputs.machine.gpu.is_none() {
        let hint = "use `device: CPU`, or check the driver and that LIBTORCH is a CUDA build";
        faults.push(fault("spec.compute.device", "there is no GPU that LibTorch can use", hint));
    }
    faults
}

/// Those that the survey found, and how many more there are.
fn data_faults(inputs: &Inputs) -> Vec<Fault> {
    let data = &inputs.data;
    let mut faults = data.faults.clone();
    let more = data.fault_count.saturating_sub(faults.len() as u64);
    if more > 0 {
        let message = format!("and {} more faults in the data", grouped(more));
        faults.push(Fault { field: Some("spec.data".to_owned()), message, ..Fault::default() });
    }
    faults
}

fn splits(workspace: &Workspace, inputs: &Inputs) -> Vec<Fault> {
    let (data, mut faults) = (&inputs.data, Vec::new());
    let field = "spec.data.train";
    match data.train.examples {
        0 => faults.push(fault(
            field,
            "there are no training examples",
            "check the path, and the share that is held out",
        )),
        1 => {
            let hint = "add examples: a few dozen teach a format, a few hundred a task";
            faults.push(fault(field, "there is only one training example", hint));
        }
        _ if data.train.label_tokens == 0 => {
            let hint = "check that every example has an answer to learn";
            faults.push(fault(field, "no token of the training examples is to be learned", hint));
        }
        _ => {}
    }
    let held_out = [
        ("validation", &workspace.data.validation, &data.validation),
        ("test", &workspace.data.test, &data.test),
    ];
    for (name, stated, found) in held_out {
        faults.extend(empty_split(name, stated, found));
    }
    faults
}

fn empty_split(name: &str, stated: &valid::HeldOut, found: &SplitFacts) -> Option<Fault> {
    if found.examples > 0 {
        return None;
    }
    let (field, hint) = match stated {
        valid::HeldOut::None => return None,
        valid::HeldOut::Fraction(_) => {
            (format!("spec.data.{name}.fraction"), "raise the fraction, or add examples")
        }
        valid::HeldOut::Source(_) => (format!("spec.data.{name}"), "check the path"),
    };
    Some(fault(&field, format!("the {name} split holds no example"), hint))
}

fn context(workspace: &Workspace, inputs: &Inputs) -> Option<Fault> {
    let (given, context) = (workspace.hyperparameters.max_sequence_length?, inputs.model.context);
    (u64::from(given) > context).then(|| {
        let message = format!(
            "{} tokens are more than the model's context of {}",
            grouped(given.into()),
            grouped(context)
        );
        fault(
            "spec.hyperparameters.maxSequenceLength",
            message,
            "lower it, or use a model with a longer context",
        )
    })
}

/// Scores of answers need answers: plain text, as it was detected, has none.
fn answers(workspace: &Workspace, inputs: &Inputs) -> Option<Fault> {
    let is_text = inputs.data.format == Some(Format::Text);
    let metrics: &[Metric] = workspace.evaluation.metrics.as_deref().unwrap_or_default();
    (is_text && !metrics.is_empty()).then(|| {
        let hint =
            "remove metrics, or map the columns of a question and its answer with data.columns";
        fault(
            "spec.evaluation.metrics",
            "the data is plain text, which has no answers to compare",
            hint,
        )
    })
}

/// A checkpoint that is quantized can neither be trained in full nor be quantized otherwise.
fn quantized(workspace: &Workspace, inputs: &Inputs) -> Option<Fault> {
    let (stated, found) = (workspace.quantization, inputs.model.quantization);
    if found.is_none() {
        return None;
    }
    let found = found.as_str();
    if matches!(workspace.adapter, valid::Adapter::Full) {
        let message =
            format!("the base model is quantized ({found}): its weights cannot be trained");
        let hint = "train an adapter (`adapter: {lora: {}}`), or use the model that was quantized";
        return Some(fault("spec.adapter.full", message, hint));
    }
    (!stated.is_none() && stated.as_str() != found).then(|| {
        let message = format!("the base model is quantized already, as {found}");
        fault("spec.quantization", message, "remove it, or use the model that was quantized")
    })
}
