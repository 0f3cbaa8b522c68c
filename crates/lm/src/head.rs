//! The language-model head and the cross-entropy behind it, a few rows at a time.
//!
//! Only rows that predict a label go through the head, and their logits `[rows, V]` exist for one
//! chunk at a time: the gradient of the hidden states is made in the same pass, so nothing of the
//! size of the vocabulary is kept. Shapes: `N` label rows, `D` hidden size, `V` vocabulary.

use tch::{Kind, Tensor};

use crate::kernels;
use crate::layers::Weight;
use crate::linear::Linear;
use crate::products;
use crate::tape::{Mode, Tape, Var};

/// Elements of a chunk's logits.
const CHUNK_ELEMENTS: i64 = 16 << 20;
/// Rows of a bf16 product on a CPU are filled up to a multiple of this: oneDNN compiles code for each
/// number of rows that it meets, and keeps it.
const ROUND: i64 = 32;

/// What the model should predict, and how much each prediction counts.
#[derive(Debug)]
pub struct Targets {
    /// `[N]`, int64: rows of the packed tokens whose hidden state predicts.
    pub rows: Tensor,
    /// `[N]`, int64: the token that each row should predict.
    pub ids: Tensor,
    /// `[N]`, fp32: weight of each prediction; 1 where absent.
    pub weights: Option<Tensor>,
    /// One over all label weight of the optimizer step, so that the losses of its micro-batches add
    /// up to the mean over the step.
    pub scale: f64,
}

/// Cross-entropy of one forward pass.
#[derive(Debug)]
pub struct Loss {
    /// Weighted sum of the cross-entropies times the scale: a scalar, fp32.
    pub value: Tensor,
    /// Predictions whose most likely token is the target: a scalar, int64.
    pub correct: Tensor,
    pub count: i64,
}

impl Loss {
    /// Runs the pass backwards from this loss; parameters gather their gradients.
    pub fn backward(&self, tape: &Tape<'_>) {
        match tape.mode() {
            Mode::Autograd => self.value.backward(),
            Mode::Explicit | Mode::Infer => tape.backward(),
        }
    }

    pub fn value(&self) -> f64 {
        self.value.double_value(&[])
    }

    pub fn correct(&self) -> i64 {
        self.correct.int64_value(&[])
    }
}

/// Loss of normalised hidden states `h [N, D]` under a head matrix `[V, D]`.
pub fn loss<'m>(tape: &Tape<'m>, h: &Var<'m>, matrix: &'m Weight, targets: &Targets) -> Loss {
    let kind = products::kind_of(h.tensor());
    if tape.mode() == Mode::Autograd {
        return tracked(&products::matmul(h.tensor(), &matrix.value(kind).tr()), targets);
    }
    let weight = matrix.value(kind);
    let wanted = tape.wants(&[h], matrix.trained().is_some());
    let dh = wanted.then(|| Tensor::empty_like(h.tensor()));
    let loss = in_chunks(targets, weight.size()[0], |start, rows, chunk| {
        let part = filled(h.tensor().narrow(0, start, rows).to_kind(kind));
        let fill = part.size()[0] - rows;
        let logits = part.matmul(&weight.tr());
        let probabilities = chunk.run(&logits.narrow(0, 0, rows), wanted)?;
        // Only the kernels take rows that are filled up, and they write over the logits.
        let dlogits = if fill > 0 { logits } else { probabilities.to_kind(kind) };
        if let Some(dh) = &dh {
            dh.narrow(0, start, rows).copy_(&dlogits.matmul(&weight).narrow(0, 0, rows));
        }
        if let Some(param) = matrix.trained() {
            param.accumulate(&dlogits.tr().matmul(&part));
        }
        Some(())
    });
    if let Some(dh) = dh {
        let slot = h.slot();
        tape.record(move |grads| grads.add_owned(slot, dh));
    }
    loss
}

/// `x [rows, D]` with rows of zeros added up to a multiple of [`ROUND`], where that is of use. What is made
/// of them does not reach the parameters: it is cut off, or multiplied by these zeros.
fn filled(x: Tensor) -> Tensor {
    if x.kind() != Kind::BFloat16 || !kernels::supports(&x) {
        return x;
    }
    let fill = (ROUND - x.size()[0] % ROUND) % ROUND;
    if fill == 0 { x } else { x.constant_pad_nd([0, 0, 0, fill]) }
}

/// The same under a head that carries an adapter: all logits exist at once.
pub fn loss_through<'m>(tape: &Tape<'m>, h: &Var<'m>, head: &'m Linear, targets: &Targets) -> Loss {
    let logits = head.forward_rows(tape, h, &targets.rows);
    if tape.mode() == Mode::Autograd {
        return tracked(logits.tensor(), targets);
    }
    let wanted = tape.wants(&[&logits], false);
    let dlogits = wanted.then(|| Tensor::empty_like(logits.tensor()));
    let loss = in_chunks(targets, head.outputs(), |start, rows, chunk| {
        let probabilities = chunk.run(&logits.tensor().narrow(0, start, rows).copy(), wanted)?;
        if let Some(dlogits) = &dlogits {
            dlogits.narrow(0, start, rows).copy_(&probabilities);
        }
        Some(())
    });
    if let Some(dlogits) = dlogits {
        let slot = logits.slot();
        tape.record(move |grads| grads.add_owned(slot, dlogits));
    }
    loss
}

/// Sums over the rows seen so far, and the current chunk's targets.
struct Chunk {
    ids: Tensor,
    weights: Option<Tensor>,
    scale: f64,
    value: Tensor,
    correct: Tensor,
}

impl Chunk {
    /// Adds the loss of `logits [rows, V]` and, where wanted, returns its gradient, which may be written
    /// over the logits: `(softmax - onehot)·weight·scale`.
    fn run(&mut self, logits: &Tensor, wanted: bool) -> Option<Tensor> {
        if kernels::supports(logits) {
            let (ids, weights) = (&self.ids, self.weights.as_ref());
            let (sum, correct) = kernels::cross_entropy(logits, ids, weights, self.scale, wanted);
            let _ = self.value.g_add_(&(sum * self.scale));
            let _ = self.correct.g_add_(&correct);
            return wanted.then(|| logits.shallow_clone());
        }
        let log_p = logits.log_softmax(-1, Kind::Float);
        let target = log_p.gather(1, &self.ids, false);
        let best = log_p.amax(-1i64, true);
        let _ = self.correct.g_add_(&target.ge_tensor(&best).sum(Kind::Int64));
        let losses = match &self.weights {
            Some(weights) => &target * weights,
            None => target.shallow_clone(),
        };
        let _ = self.value.g_sub_(&(losses.sum(Kind::Float) * self.scale));
        if !wanted {
            return None;
        }
        let mut p = log_p;
        let mut p = p.exp_();
        let mut p = p.scatter_add_(1, &self.ids, &Tensor::full_like(&target, -1.0));
        let mut p = p.g_mul_scalar_(self.scale);
        Some(match &self.weights {
            Some(weights) => p.g_mul_(weights),
            None => p,
        })
    }
}

fn in_chunks(
    targets: &Targets,
    vocabulary: i64,
    mut body: impl FnMut(i64, i64, &mut Chunk) -> Option<()>,
) -> Loss {
    let count = targets.ids.size()[0];
    let device = targets.ids.device();
    let size = (CHUNK_ELEMENTS / vocabulary / ROUND * ROUND).max(ROUND);
    let mut chunk = Chunk {
        ids: Tensor::new(),
        weights: None,
        scale: targets.scale,
        value: Tensor::zeros([], (Kind::Float, device)),
        correct: Tensor::zeros([], (Kind::Int64, device)),
    };
    let mut start = 0;
    while start < count {
        let rows = size.min(count - start);
        chunk.ids = targets.ids.narrow(0, start, rows).unsqueeze(1);
        chunk.weights = targets.weights.as_ref().map(|w| w.narrow(0, start, rows).unsqueeze(1));
        let _ = body(start, rows, &mut chunk);
        start += rows;
    }
    Loss { value: chunk.value, correct: chunk.correct, count }
}

/// By operations that LibTorch can differentiate.
fn tracked(logits: &Tensor, targets: &Targets) -> Loss {
    let log_p = logits.log_softmax(-1, Kind::Float);
    let ids = targets.ids.unsqueeze(1);
    let target = log_p.gather(1, &ids, false).squeeze_dim(1);
    let correct = log_p.argmax(-1, false).eq_tensor(&targets.ids).sum(Kind::Int64);
    let losses = match &targets.weights {
        Some(weights) => target * weights,
        None => target,
    };
    let value = losses.sum(Kind::Float) * -targets.scale;
    Loss { value, correct, count: targets.ids.size()[0] }
}
