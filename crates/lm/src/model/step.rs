//! One step of a server: new tokens of many sequences, each with an adapter of its own, over one cache.

use std::cell::RefCell;

use tch::Tensor;

use super::Model;
use crate::adapters::{LinearShapes, Routes};
use crate::kv_cache::KvCache;
use crate::layers::Quantization;
use crate::models::Module;
use crate::packed::Packed;
use crate::tape::Tape;

impl Model {
    /// Logits `[wanted, V]` of the rows `wanted`, in ascending order. The cache takes up all rows of
    /// `packed`; it has been told where they go.
    pub fn step(
        &self,
        packed: &Packed,
        cache: &RefCell<KvCache>,
        routes: &Routes<'_>,
        wanted: &[i64],
    ) -> Tensor {
        let hidden = self.hidden(&Tape::infer_with(routes), packed, Some(cache)).into_tensor();
        let rows = Tensor::from_slice(wanted).to_device(self.device());
        let chosen = hidden.index_select(0, &rows);
        self.logits_with(&Tape::infer_with(&routes.select(wanted)), &chosen)
    }

    /// Rounds the head's matrix too, where it is one of its own.
    pub fn quantize_head(&mut self, format: Quantization) {
        if let Some(head) = &mut self.lm_head {
            head.weight.quantize(format);
        }
    }

    /// Bytes of the frozen matrices of the linear layers, and elements that they stand for.
    pub fn frozen_linears(&mut self) -> (usize, usize) {
        let linears = self.modules().into_iter().filter_map(|module| match module {
            Module::Linear(linear) => Some(&linear.weight),
            Module::Norm(_) | Module::Embedding(_) => None,
        });
        linears.fold((0, 0), |(bytes, elements), weight| {
            let size: i64 = weight.size().iter().product();
            (bytes + weight.frozen_bytes(), elements + size as usize)
        })
    }

    /// Names and shapes of the linear layers, which adapters are held against.
    pub fn linear_shapes(&mut self) -> LinearShapes {
        let mut shapes = LinearShapes::new();
        for module in self.modules() {
            if let Module::Linear(linear) = module {
                shapes.insert(linear.name.clone(), (linear.outputs(), linear.inputs()));
            }
        }
        shapes
    }
}
