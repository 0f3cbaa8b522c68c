//! The ways of teaching. A method turns packed examples into a loss; all else is the same for all.

use api::run_spec::Method;
use lm::head::Loss;
use lm::model::Model;
use lm::packed::Packed;
use lm::tape::Tape;

use crate::data::MicroBatch;
use crate::methods::sft;

/// The loss of `batch`, summed over its labels and times `scale`. `packed` holds its tokens.
pub fn loss<'m>(
    method: &Method,
    model: &'m Model,
    tape: &Tape<'m>,
    packed: &'m Packed,
    batch: &MicroBatch,
    scale: f64,
) -> Loss {
    match method {
        Method::Sft => sft::loss(model, tape, packed, batch, scale),
    }
}
