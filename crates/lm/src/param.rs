//! A trained tensor and its gradient.

use std::cell::RefCell;

use tch::{Kind, Tensor};

/// A trained tensor: always fp32, whatever the frozen weights are stored in.
#[derive(Debug)]
pub struct Param {
    name: String,
    value: Tensor,
    grad: RefCell<Option<Tensor>>,
}

impl Param {
    /// `name` is the tensor's name in the file that the parameter is saved to.
    pub fn new(name: impl Into<String>, value: &Tensor) -> Self {
        let value = tch::no_grad(|| value.to_kind(Kind::Float).contiguous().copy());
        Self { name: name.into(), value, grad: RefCell::new(None) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fp32 value. Clones share storage, so an optimizer may update it in place.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value in the number format of the activations.
    pub fn cast(&self, kind: Kind) -> Tensor {
        self.value.to_kind(kind)
    }

    /// Adds to the gradient, in fp32.
    pub fn accumulate(&self, grad: &Tensor) {
        let mut slot = self.grad.borrow_mut();
        match slot.as_mut() {
            Some(sum) => {
                let _ = sum.g_add_(grad);
            }
            None => *slot = Some(grad.to_kind(Kind::Float).contiguous().copy()),
        }
    }

    /// The gradient gathered since the last [`Param::zero_grad`], whichever way it was computed.
    pub fn grad(&self) -> Option<Tensor> {
        if self.value.requires_grad() {
            let grad = self.value.grad();
            return grad.defined().then_some(grad);
        }
        self.grad.borrow().as_ref().map(Tensor::shallow_clone)
    }

    pub fn zero_grad(&self) {
        *self.grad.borrow_mut() = None;
        if self.value.requires_grad() {
            self.value.shallow_clone().zero_grad();
        }
    }

    /// Lets LibTorch's autograd track this parameter: the reference path of the tests.
    pub fn track(&self, on: bool) {
        let _ = self.value.set_requires_grad(on);
    }

    /// Overwrites the value, shape unchanged.
    pub fn assign(&self, value: &Tensor) {
        tch::no_grad(|| self.value.shallow_clone().copy_(value));
    }
}
