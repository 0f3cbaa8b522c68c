//! How a forward pass is remembered and run backwards.
//!
//! Layers call one operation after another on a [`Tape`]. In [`Mode::Explicit`] each operation
//! computes its result without LibTorch's autograd and records a hand-written backward step that
//! keeps only what it needs. In [`Mode::Autograd`] the same calls are plain LibTorch operations, and
//! LibTorch differentiates them: the reference that every hand-written gradient is tested against.
//! In [`Mode::Infer`] nothing is recorded. A model does not know which one runs.
//!
//! What saves memory in the explicit mode:
//! - a value that is cheap to make again (a normalised input, a gated product) carries a recipe, and
//!   who needs it in the backward pass keeps the recipe and not the tensor;
//! - a backward step is consumed when it runs, so what it kept is freed on the way;
//! - a [`Tape::segment`] can be recomputed: then only its input is kept.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tch::Tensor;

use crate::adapters::Routes;
use crate::dropout::Dropout;

/// Which path a tape takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Results only.
    Infer,
    /// Hand-written backward steps.
    Explicit,
    /// LibTorch's autograd.
    Autograd,
}

/// What a tape does beside computing.
#[derive(Clone, Debug)]
pub struct TapeOptions {
    pub mode: Mode,
    /// Keep only the inputs of segments and compute the rest again in the backward pass.
    pub checkpointing: bool,
    /// What this pass's dropout masks are drawn from; `None` switches dropout off.
    pub dropout: Option<Dropout>,
}

/// One forward pass over a model that lives at least for `'m`.
pub struct Tape<'m> {
    options: TapeOptions,
    /// Set while a segment is computed again: its last sum is not needed.
    recomputing: bool,
    steps: RefCell<Vec<Step<'m>>>,
    slots: Cell<usize>,
    /// Adapters that differ from row to row, while serving.
    routes: Option<&'m Routes<'m>>,
}

type Step<'m> = Box<dyn FnOnce(&mut Gradients) + 'm>;
type Recipe<'m> = Rc<dyn Fn() -> Tensor + 'm>;

/// A value of the forward pass.
pub struct Var<'m> {
    tensor: Tensor,
    /// Where the gradient is gathered; `None` where none is needed.
    slot: Option<Slot>,
    recipe: Option<Recipe<'m>>,
}

/// Names a value's gradient in [`Gradients`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// What a backward step keeps of a value: the tensor, or how to make it again.
pub enum Saved<'m> {
    Tensor(Tensor),
    Recipe(Recipe<'m>),
}

/// Gradients of values, gathered from the end of the pass to its start.
#[derive(Debug, Default)]
pub struct Gradients(Vec<Option<Grad>>);

#[derive(Debug)]
struct Grad {
    tensor: Tensor,
    /// Whether nobody else holds this tensor, so that it may be added to in place.
    owned: bool,
}

impl<'m> Tape<'m> {
    pub fn new(options: TapeOptions) -> Self {
        let (steps, slots) = (RefCell::default(), Cell::new(0));
        Self { options, recomputing: false, steps, slots, routes: None }
    }

    /// A tape that records nothing.
    pub fn infer() -> Self {
        let mode = Mode::Infer;
        Self::new(TapeOptions { mode, checkpointing: false, dropout: None })
    }

    /// A tape that records nothing, over rows that each have an adapter of their own.
    pub fn infer_with(routes: &'m Routes<'m>) -> Self {
        Self { routes: Some(routes), ..Self::infer() }
    }

    pub fn mode(&self) -> Mode {
        self.options.mode
    }

    /// Adds to `y`, the layer's result for `x`, what each row's adapter adds to it.
    pub(crate) fn routed(&self, layer: &str, x: &Tensor, y: Tensor) -> Tensor {
        match self.routes {
            Some(routes) => routes.add(layer, x, y),
            None => y,
        }
    }

    pub(crate) fn dropout(&self) -> Option<&Dropout> {
        self.options.dropout.as_ref()
    }

    /// Whether the sum that ends a segment may be skipped, since only its gradient is wanted.
    pub(crate) fn skips_last_sum(&self) -> bool {
        self.recomputing
    }

    /// Whether backward steps have to be recorded at all.
    pub(crate) fn records(&self) -> bool {
        self.options.mode == Mode::Explicit
    }

    /// A value that gets no gradient.
    pub fn constant(&self, tensor: Tensor) -> Var<'m> {
        Var { tensor, slot: None, recipe: None }
    }

    /// A value with a gradient of its own; for recorded operations.
    pub(crate) fn tracked(&self, tensor: Tensor) -> Var<'m> {
        let slot = Slot(self.slots.get());
        self.slots.set(slot.0 + 1);
        Var { tensor, slot: Some(slot), recipe: None }
    }

    pub(crate) fn record(&self, step: impl FnOnce(&mut Gradients) + 'm) {
        self.steps.borrow_mut().push(Box::new(step));
    }

    /// Part of a model, such as half a block, that may be computed again to save memory. It ends
    /// with the sum of its residual connection, by [`Tape::add`] or [`crate::linear::Linear::residual`].
    pub fn segment(&self, x: Var<'m>, body: impl Fn(&Self, Var<'m>) -> Var<'m> + 'm) -> Var<'m> {
        if !(self.records() && self.options.checkpointing) {
            return body(self, x);
        }
        let forward = Tape::new(TapeOptions { mode: Mode::Infer, ..self.options.clone() });
        let inside_segment = TapeOptions { checkpointing: false, ..self.options.clone() };
        let y = body(&forward, forward.constant(x.tensor.shallow_clone())).tensor;
        let y = self.tracked(y);
        let (input, input_slot, output) = (x.tensor, x.slot, y.slot);
        self.record(move |grads| {
            let Some(dy) = grads.take(output) else { return };
            let inner = Tape { recomputing: true, ..Tape::new(inside_segment) };
            let x = match input_slot {
                Some(_) => inner.tracked(input),
                None => inner.constant(input),
            };
            let slot = x.slot;
            let y = body(&inner, x);
            let mut inside = Gradients::default();
            inside.add_owned(y.slot, dy);
            drop(y);
            inner.run(&mut inside);
            if let Some(dx) = inside.take(slot) {
                grads.add_owned(input_slot, dx);
            }
        });
        y
    }

    /// Runs the recorded steps from last to first, starting from the gradients in `grads`.
    pub(crate) fn run(&self, grads: &mut Gradients) {
        let mut steps = std::mem::take(&mut *self.steps.borrow_mut());
        while let Some(step) = steps.pop() {
            step(grads);
        }
    }

    /// Runs the pass backwards; parameters gather their gradients.
    ///
    /// In [`Mode::Explicit`] the loss has already put its gradient on the tape. In
    /// [`Mode::Autograd`] use [`crate::head::Loss::backward`], which knows the loss tensor.
    pub(crate) fn backward(&self) {
        let mut grads = Gradients::default();
        tch::no_grad(|| self.run(&mut grads));
    }
}

impl<'m> Var<'m> {
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }

    pub(crate) fn slot(&self) -> Option<Slot> {
        self.slot
    }

    pub(crate) fn with_recipe(mut self, recipe: impl Fn() -> Tensor + 'm) -> Self {
        self.recipe = Some(Rc::new(recipe));
        self
    }

    /// What a backward step should keep of this value.
    pub(crate) fn save(&self) -> Saved<'m> {
        match &self.recipe {
            Some(recipe) => Saved::Recipe(Rc::clone(recipe)),
            None => Saved::Tensor(self.tensor.shallow_clone()),
        }
    }

    /// The same value for a second use.
    #[must_use]
    pub fn share(&self) -> Self {
        let recipe = self.recipe.as_ref().map(Rc::clone);
        Self { tensor: self.tensor.shallow_clone(), slot: self.slot, recipe }
    }
}

impl Saved<'_> {
    pub(crate) fn get(&self) -> Tensor {
        match self {
            Self::Tensor(tensor) => tensor.shallow_clone(),
            Self::Recipe(recipe) => recipe(),
        }
    }
}

impl Gradients {
    /// Takes what was gathered for a value; `None` where nothing depended on it.
    pub(crate) fn take(&mut self, slot: Option<Slot>) -> Option<Tensor> {
        self.0.get_mut(slot?.0)?.take().map(|grad| grad.tensor)
    }

    /// Adds a gradient that nobody else holds.
    pub(crate) fn add_owned(&mut self, slot: Option<Slot>, grad: Tensor) {
        self.add(slot, Grad { tensor: grad, owned: true });
    }

    /// Adds a gradient that others hold as well, so that it must not be changed.
    pub(crate) fn add_shared(&mut self, slot: Option<Slot>, grad: &Tensor) {
        self.add(slot, Grad { tensor: grad.shallow_clone(), owned: false });
    }

    fn add(&mut self, slot: Option<Slot>, mut new: Grad) {
        let Some(Slot(index)) = slot else { return };
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(match self.0[index].take() {
            None => new,
            Some(mut old) if old.owned => {
                let _ = old.tensor.g_add_(&new.tensor);
                old
            }
            Some(old) if new.owned => {
                let _ = new.tensor.g_add_(&old.tensor);
                new
            }
            Some(old) => Grad { tensor: old.tensor + new.tensor, owned: true },
        });
    }
}

impl std::fmt::Debug for Tape<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape")
            .field("options", &self.options)
            .field("steps", &self.steps.borrow().len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Var")
            .field("tensor", &self.tensor)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Saved<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tensor(_) => "Saved::Tensor",
            Self::Recipe(_) => "Saved::Recipe",
        })
    }
}
