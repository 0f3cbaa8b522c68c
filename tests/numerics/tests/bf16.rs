//! bf16 stays as close to fp32 as its eight bits allow, in the loss and in where gradients point.
#![expect(clippy::unwrap_used, reason = "tests")]

use tch::{Kind, Tensor};
use tests_numerics::run::{self, Path};
use tests_numerics::{CASES, Case};

/// Largest relative difference of a loss.
const LOSS: f64 = 1e-2;
/// Least cosine between two whole gradients.
const COSINE: f64 = 0.99;

#[test]
fn bf16_runs_follow_fp32() {
    for name in CASES {
        let case = Case::open(name).unwrap();
        let (folder, reference) = case.adapter("adapter").unwrap();
        let mut model = run::load_as(&case, Kind::BFloat16).unwrap();
        lm::peft::load(&mut model, &folder).unwrap();
        for path in Path::ALL {
            let loss = run::loss_and_gradients(&model, path, &case.batch(0));
            let difference = (loss - reference.loss()).abs() / reference.loss();
            assert!(
                difference < LOSS,
                "{name} {path:?}: loss {loss}, in fp32 {}",
                reference.loss()
            );
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for (matrix, gradient) in reference.gradients() {
                ours.push(run::gradient(&model, matrix).unwrap().view(-1));
                theirs.push(gradient.view(-1));
            }
            let cosine = cosine(&Tensor::cat(&ours, 0), &Tensor::cat(&theirs, 0));
            assert!(cosine > COSINE, "{name} {path:?}: gradients have cosine {cosine} with fp32's");
        }
    }
}

fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    (a.dot(b) / (a.norm() * b.norm())).double_value(&[])
}
