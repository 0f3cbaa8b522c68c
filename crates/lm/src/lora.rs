//! Low-rank adapters (Hu et al. 2021): what a linear layer carries beside its frozen matrix, and
//! which layers get one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use crate::dropout::Dropout;
use crate::param::Param;

/// Two small matrices beside a frozen one: `y = x·Wᵀ + scaling·(x·Aᵀ)·Bᵀ`.
#[derive(Debug)]
pub struct Lora {
    /// `[r, inputs]`.
    pub a: Rc<Param>,
    /// `[outputs, r]`.
    pub b: Rc<Param>,
    pub scaling: f64,
    /// Share of the adapter's inputs that training sets to zero.
    pub dropout: f64,
    /// Switched off to answer as the base model does.
    pub enabled: Cell<bool>,
}

/// PEFT's `LoraConfig`, as far as it decides what is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    pub rank: i64,
    pub alpha: f64,
    pub dropout: f64,
    /// Names or patterns; `all-linear` is every linear layer but the head.
    pub target_modules: Vec<String>,
    pub exclude_modules: Vec<String>,
    /// Scale by `alpha / sqrt(rank)` (Kalajdzievski 2023) and not by `alpha / rank`.
    pub rslora: bool,
    pub bias: LoraBias,
    pub modules_to_save: Vec<String>,
}

/// Which bias vectors are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraBias {
    None,
    All,
    LoraOnly,
}

impl LoraConfig {
    /// An adapter on every linear layer but the head: `alpha` is twice the rank, and nothing else is set.
    pub fn all_linear(rank: i64) -> Self {
        Self {
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.0,
            target_modules: vec!["all-linear".to_owned()],
            exclude_modules: Vec::new(),
            rslora: false,
            bias: LoraBias::None,
            modules_to_save: Vec::new(),
        }
    }

    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether the linear layer of this name gets an adapter. PEFT's rule: a name matches a target
    /// that it equals or ends with after a dot; a pattern has to match it whole.
    pub fn targets(&self, name: &str, is_head: bool) -> bool {
        if self.exclude_modules.iter().any(|target| matches(target, name)) {
            return false;
        }
        self.target_modules.iter().any(|target| match target.as_str() {
            "all-linear" => !is_head,
            target => matches(target, name),
        })
    }

    /// Whether the module of this name is trained in full and saved with the adapter.
    pub fn saves(&self, name: &str) -> bool {
        self.modules_to_save.iter().any(|target| ends_with_module(name, target))
    }
}

fn matches(target: &str, name: &str) -> bool {
    ends_with_module(name, target)
        || regex::Regex::new(&format!("^(?:{target})$")).is_ok_and(|regex| regex.is_match(name))
}

/// `a.b.c` ends with the modules `c`, `b.c` and `a.b.c`.
fn ends_with_module(name: &str, module: &str) -> bool {
    name.strip_suffix(module).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Lora {
    /// A new adapter for the layer `name`: `A` drawn as PEFT draws it (uniform within
    /// `±1/sqrt(inputs)`, Kaiming with `a = sqrt(5)`), `B` zero, so that it changes nothing yet.
    ///
    /// The draw depends on the seed and the name alone, not on how many layers came before.
    pub fn new(
        name: &str,
        outputs: i64,
        inputs: i64,
        config: &LoraConfig,
        seed: u64,
        device: Device,
    ) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        let a = draw(mix(seed, name), || {
            Tensor::empty([config.rank, inputs], (Kind::Float, Device::Cpu)).uniform_(-bound, bound)
        });
        let b = Tensor::zeros([outputs, config.rank], (Kind::Float, device));
        Self::from_matrices(name, &a.to_device(device), &b, config)
    }

    pub fn from_matrices(name: &str, a: &Tensor, b: &Tensor, config: &LoraConfig) -> Self {
        Self {
            a: Rc::new(Param::new(format!("{name}.lora_A.weight"), a)),
            b: Rc::new(Param::new(format!("{name}.lora_B.weight"), b)),
            scaling: config.scaling(),
            dropout: config.dropout,
            enabled: Cell::new(true),
        }
    }

    pub fn rank(&self) -> i64 {
        self.a.value().size()[0]
    }

    /// `B·scaling` in the number format of the activations.
    pub(crate) fn scaled_b(&self, kind: Kind) -> Tensor {
        (self.b.value() * self.scaling).to_kind(kind)
    }

    /// Dropout's factors for the adapter's inputs, where there is any.
    pub(crate) fn dropout_mask(&self, x: &Tensor, dropout: Option<&Dropout>) -> Option<Tensor> {
        let dropout = dropout.filter(|_| self.dropout > 0.0)?;
        Some(dropout.mask(self.a.name(), self.dropout, x))
    }
}

/// Draws random numbers that depend on `seed` alone. LibTorch has one generator for all threads, so
/// that no other thread may draw between seeding and drawing.
pub(crate) fn draw(seed: u64, numbers: impl FnOnce() -> Tensor) -> Tensor {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed as i64);
    numbers()
}

/// A 63-bit seed from a seed and a name (FNV-1a, then the finaliser of SplitMix64).
pub(crate) fn mix(seed: u64, name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) >> 1
}
