//! Supervised fine-tuning: cross-entropy on the learned tokens, each predicted from those before it.

use lm::head::{Loss, Targets};
use lm::model::Model;
use lm::packed::Packed;
use lm::tape::Tape;
use tch::{Device, Tensor};

use crate::data::MicroBatch;

/// Weighted sum of the cross-entropies of the learned tokens, times `scale`.
pub fn loss<'m>(
    model: &'m Model,
    tape: &Tape<'m>,
    packed: &'m Packed,
    batch: &MicroBatch,
    scale: f64,
) -> Loss {
    let hidden = model.hidden(tape, packed, None);
    model.loss(tape, &hidden, &targets(batch, scale, model.device()))
}

fn targets(batch: &MicroBatch, scale: f64, device: Device) -> Targets {
    let weights = batch.weights.as_ref();
    Targets {
        rows: Tensor::from_slice(&batch.positions).to_device(device),
        ids: Tensor::from_slice(&batch.targets).to_device(device),
        weights: weights.map(|weights| Tensor::from_slice(weights).to_device(device)),
        scale,
    }
}
