//! A workspace's revision: 12 digits over what training depends on. Another revision is another run;
//! the same one goes on from its last checkpoint.

use api::RunSpec;
use api::run_spec::HeldOut;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Digits of a revision.
const DIGITS: usize = 12;

/// The revision of a run whose data has this digest.
///
/// Left out is what changes neither the losses nor the weights: names and places of files (their
/// digests stand for them), how memory is used, threads, what is scored only at the end, checkpoints
/// and the output.
pub fn revision(spec: &RunSpec, data_digest: &str) -> String {
    let base = spec.base_model.digest.as_ref().unwrap_or(&spec.base_model.reference);
    let early_stopping = spec.evaluation.early_stopping.as_ref();
    let content = json!({
        "baseModel": base,
        "data": data(spec, data_digest),
        "method": spec.method,
        "adapter": spec.adapter,
        "training": training(spec),
        // When the validation loss is looked at decides what is stopped and which state is the best.
        "validation": (!matches!(spec.data.validation, HeldOut::None)).then_some(spec.evaluation.every_steps),
        "earlyStopping": early_stopping,
    });
    let digest = Sha256::digest(content.to_string());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..DIGITS].to_owned()
}

fn data(spec: &RunSpec, digest: &str) -> Value {
    let fraction = |held_out: &HeldOut| match held_out {
        HeldOut::Fraction(fraction) => Some(*fraction),
        HeldOut::None | HeldOut::Files(_) => None,
    };
    json!({
        "digest": digest,
        "validation": fraction(&spec.data.validation),
        "test": fraction(&spec.data.test),
        "format": spec.data.format,
        "columns": spec.data.columns,
        "template": spec.data.template,
        "system": spec.data.system,
        "maxSequenceLength": spec.data.max_sequence_length,
        "overlong": spec.data.overlong,
        "duplicates": spec.data.duplicates,
    })
}

fn training(spec: &RunSpec) -> Value {
    let mut training = json!(spec.training);
    if let Value::Object(fields) = &mut training {
        fields.shift_remove("microBatchTokens");
        fields.shift_remove("activationCheckpointing");
    }
    training
}
