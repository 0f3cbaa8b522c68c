//! Every CPU kernel, forward and backward, against LibTorch's autograd of the composed operators: in fp32
//! and bf16, with each instruction set that the processor has.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::rc::Rc;

use lm::config::Activation;
use lm::head::{self, Targets};
use lm::layers::{Embedding, RmsNorm, Weight};
use lm::packed::Packed;
use lm::param::Param;
use lm::rope::{RopeFrequencies, RopeTable};
use lm::tape::{Mode, Tape, TapeOptions, Var};
use tch::{Device, Kind, Tensor};

const TOKENS: i64 = 37;
const WIDTH: i64 = 96;
const VOCABULARY: i64 = 501;

/// A small network: embedding, one operation under test, head.
struct Net {
    embedding: Embedding,
    other: Embedding,
    norm: RmsNorm,
    head: Weight,
    table: Rc<RopeTable>,
}

impl Net {
    fn new(kind: Kind, offset: f64) -> Self {
        tch::manual_seed(7);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        let embedding = |name: &str| Embedding {
            name: name.to_owned(),
            weight: Weight::Trained(Rc::new(Param::new(name, &(random(&[TOKENS, WIDTH]) * 2.0)))),
            kind,
        };
        let ids: Vec<i64> = (0..TOKENS).collect();
        let packed = Packed::new(&ids, &[20, 17], Device::Cpu);
        let inverse = Tensor::from_slice(&[1.0f32, 0.3, 0.05, 0.01, 0.002, 0.0007]);
        let frequencies = RopeFrequencies { inverse, attention_factor: 1.1 };
        Self {
            embedding: embedding("a"),
            other: embedding("b"),
            norm: RmsNorm {
                name: "n".to_owned(),
                weight: Weight::Trained(Rc::new(Param::new("n", &(random(&[WIDTH]) * 0.2 + 1.0)))),
                eps: 1e-6,
                offset,
            },
            head: Weight::Frozen(random(&[VOCABULARY, WIDTH]) * 0.1),
            table: Rc::new(RopeTable::new(&frequencies.into(), &packed, kind)),
        }
    }

    fn params(&self) -> Vec<Rc<Param>> {
        [&self.embedding.weight, &self.other.weight, &self.norm.weight]
            .map(|weight| weight.trained().unwrap().clone())
            .to_vec()
    }

    /// Loss and gradients of the network around `operation`.
    fn run(&self, mode: Mode, operation: &Operation) -> (f64, Vec<Option<Tensor>>) {
        for param in self.params() {
            param.zero_grad();
            param.track(mode == Mode::Autograd);
        }
        let tape = Tape::new(TapeOptions { mode, checkpointing: false, dropout: None });
        let ids = Tensor::arange(TOKENS, (Kind::Int64, Device::Cpu));
        let y = operation(self, &tape, self.embedding.forward(&tape, &ids));
        let targets = Targets {
            rows: ids.shallow_clone(),
            ids: (&ids * 13).remainder(VOCABULARY),
            weights: Some((&ids + 1).to_kind(Kind::Float) / 20.0),
            scale: 0.03,
        };
        let loss = head::loss(&tape, &y, &self.head, &targets);
        loss.backward(&tape);
        let grads =
            self.params().iter().map(|param| param.grad().map(|grad| grad.copy())).collect();
        (loss.value(), grads)
    }
}

type Operation = dyn for<'m> Fn(&'m Net, &Tape<'m>, Var<'m>) -> Var<'m>;

fn check(name: &str, kind: Kind, offset: f64, operation: &Operation) {
    let net = Net::new(kind, offset);
    let (loss, grads) = net.run(Mode::Explicit, operation);
    let (expected, reference) = net.run(Mode::Autograd, operation);
    let tolerance = if kind == Kind::Float { 2e-6 } else { 2e-2 };
    assert!(
        (loss - expected).abs() <= tolerance * expected.abs(),
        "{name}: loss {loss}, expected {expected}"
    );
    for (param, (grad, expected)) in net.params().iter().zip(grads.iter().zip(&reference)) {
        let (Some(grad), Some(expected)) = (grad, expected) else {
            assert!(
                grad.is_none() && expected.is_none(),
                "{name}: gradient of `{}` on one path only",
                param.name()
            );
            continue;
        };
        let difference = f64::try_from((grad - expected).norm() / expected.norm()).unwrap();
        assert!(
            difference < tolerance,
            "{name} {kind:?}: gradient of `{}` differs by {difference:e}",
            param.name()
        );
    }
}

fn check_all() {
    for kind in [Kind::Float, Kind::BFloat16] {
        check("head", kind, 0.0, &|_, _, x| x);
        for offset in [0.0, 1.0] {
            check("norm", kind, offset, &|net, tape, x| net.norm.forward(tape, &x));
        }
        check("rope", kind, 0.0, &|net, tape, x| tape.rope(&x, &net.table, 16));
        for activation in [Activation::Silu, Activation::GeluTanh] {
            check("gated", kind, 0.0, &move |net, tape, x| {
                let ids = Tensor::arange(TOKENS, (Kind::Int64, Device::Cpu));
                tape.gated(activation, &x, &net.other.forward(tape, &ids))
            });
        }
    }
}

#[test]
fn kernels_agree_with_autograd() {
    check_all();
}

/// The choice is made once in a process, so each instruction set gets a process of its own.
#[test]
fn simpler_instruction_sets_agree_too() {
    for level in ["base", "avx2"] {
        let test = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kernels_agree_with_autograd"])
            .env("ANNEAL_KERNELS", level)
            .output()
            .unwrap();
        assert!(test.status.success(), "{level}: {}", String::from_utf8_lossy(&test.stdout));
    }
}

/// Values at which naive formulas overflow or lose all digits.
#[test]
fn extreme_logits_have_a_finite_loss() {
    let logits = Tensor::from_slice(&[1000.0f32, -1000.0, 0.0, -88.0, 3.0e4, -3.0e4]).view([1, 6]);
    let head = Weight::Frozen(logits.tr().contiguous());
    let tape = Tape::infer();
    let h = tape.constant(Tensor::ones([1, 1], (Kind::Float, Device::Cpu)));
    let zero = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
    let targets = Targets { rows: zero.shallow_clone(), ids: zero, weights: None, scale: 1.0 };
    let loss = head::loss(&tape, &h, &head, &targets).value();
    assert!((loss - 29000.0).abs() < 1.0, "loss {loss}");
}
