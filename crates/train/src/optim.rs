//! AdamW (Loshchilov & Hutter 2019) as `torch.optim.AdamW` computes it, and clipping of the global
//! gradient norm as `torch.nn.utils.clip_grad_norm_` does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use lm::param::Param;
use regex::Regex;
use tch::{Kind, Tensor};

use crate::tensors::{self, TensorsError};

/// What clipping adds to the norm before it divides by it, as PyTorch does.
const CLIP_EPSILON: f64 = 1e-6;

/// The optimizer and what it remembers of each parameter, by name.
#[derive(Debug)]
pub struct AdamW {
    settings: Settings,
    /// Optimizer steps taken.
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

/// The numbers that AdamW is steered by, beside the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Decoupled: the values shrink by this times the learning rate in each step.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 is no limit.
    pub max_grad_norm: f64,
}

/// Running means of one parameter's gradient and of its square, fp32, in the parameter's shape.
#[derive(Debug)]
struct Moments {
    mean: Tensor,
    square: Tensor,
}

impl AdamW {
    pub fn new(settings: Settings) -> Self {
        Self { settings, steps: 0, moments: BTreeMap::new() }
    }

    /// Takes one step with `params`' gradients, scaled down together if their norm, `norm`, is over
    /// the limit. A parameter without a gradient is left as it is.
    pub fn step(&mut self, params: &[&Param], norm: f64, learning_rate: f64) {
        self.steps += 1;
        let scale = clip_factor(norm, self.settings.max_grad_norm);
        tch::no_grad(|| {
            for param in params {
                if let Some(grad) = param.grad() {
                    let grad = if scale < 1.0 { grad * scale } else { grad };
                    self.update(param, &grad, learning_rate);
                }
            }
        });
    }

    /// Moves one parameter, operation for operation as PyTorch's single-tensor path.
    fn update(&mut self, param: &Param, grad: &Tensor, learning_rate: f64) {
        let Settings { beta1, beta2, epsilon, weight_decay, .. } = self.settings;
        let moments = self.moments.entry(param.name().to_owned()).or_insert_with(|| Moments {
            mean: param.value().zeros_like(),
            square: param.value().zeros_like(),
        });
        let mut value = param.value().shallow_clone();
        if weight_decay > 0.0 && decays(param.name()) {
            let _ = value.g_mul_scalar_(1.0 - learning_rate * weight_decay);
        }
        let _ = moments.mean.lerp_(grad, 1.0 - beta1);
        let _ = moments.square.g_mul_scalar_(beta2);
        let _ = moments.square.addcmul_(grad, &(grad * (1.0 - beta2)));

        let step = self.steps as f64;
        let step_size = learning_rate / (1.0 - beta1.powf(step));
        let mut divisor = moments.square.sqrt();
        let _ = divisor.g_div_scalar_((1.0 - beta2.powf(step)).sqrt());
        let _ = divisor.g_add_scalar_(epsilon);
        let _ = value.addcdiv_(&(&moments.mean * -step_size), &divisor);
    }

    /// Writes what [`AdamW::load`] needs to a safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), TensorsError> {
        let mut named = BTreeMap::new();
        for (name, moments) in &self.moments {
            named.insert(format!("{name}.exp_avg"), moments.mean.shallow_clone());
            named.insert(format!("{name}.exp_avg_sq"), moments.square.shallow_clone());
        }
        named.insert("step".to_owned(), Tensor::from(self.steps as i64));
        tensors::write(path, &named)
    }

    /// Reads the state that [`AdamW::save`] wrote, for the same parameters.
    pub fn load(settings: Settings, path: &Path, params: &[&Param]) -> Result<Self, TensorsError> {
        let mut named = tensors::read(path)?;
        let mut take = |name: &str| {
            named.remove(name).ok_or_else(|| TensorsError::Missing {
                path: path.to_owned(),
                name: name.to_owned(),
            })
        };
        let steps = take("step")?.int64_value(&[]) as u64;
        let mut moments = BTreeMap::new();
        for param in params {
            let name = param.name();
            // A parameter that never had a gradient has no moments.
            let Ok(mean) = take(&format!("{name}.exp_avg")) else { continue };
            let square = take(&format!("{name}.exp_avg_sq"))?;
            let device = param.value().device();
            moments.insert(
                name.to_owned(),
                Moments { mean: mean.to_device(device), square: square.to_device(device) },
            );
        }
        Ok(Self { settings, steps, moments })
    }
}

/// Euclidean norm over the gradients of all parameters, in fp32 like PyTorch's.
pub fn global_norm(params: &[&Param]) -> f64 {
    let norms: Vec<Tensor> =
        params.iter().filter_map(|param| param.grad()).map(|grad| grad.norm()).collect();
    if norms.is_empty() {
        return 0.0;
    }
    Tensor::stack(&norms, 0).norm().to_kind(Kind::Double).double_value(&[])
}

/// What gradients are multiplied by so that their norm is at most `max_norm`.
fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm <= 0.0 { 1.0 } else { (max_norm / (norm + CLIP_EPSILON)).min(1.0) }
}

/// Whether weight decay applies: not to biases and norms, by the name patterns that transformers'
/// `Trainer.get_decay_parameter_names` uses.
pub(crate) fn decays(name: &str) -> bool {
    static WITHOUT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
            .expect("the pattern is valid")
    });
    !WITHOUT.is_match(&name.to_lowercase())
}
