//! A decoder: embeddings, blocks, final norm and head, and what of it is trained.

mod step;

use std::cell::RefCell;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::attention::Context;
use crate::config::ModelConfig;
use crate::files::ModelFiles;
use crate::head::{self, Loss, Targets};
use crate::kv_cache::KvCache;
use crate::layers::{Embedding, Quantization, RmsNorm, Weight};
use crate::linear::Linear;
use crate::loader::{LoadError, Loader};
use crate::lora::{Lora, LoraBias, LoraConfig};
use crate::models::{self, Block, Module, Traits};
use crate::packed::Packed;
use crate::param::Param;
use crate::products;
use crate::rope::{Frequencies, RopeTable};
use crate::tape::{Tape, Var};
use crate::weights::Weights;

/// Where the model's tensors live and in which number format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    pub kind: Kind,
    pub device: Device,
    /// How the matrices of the blocks' linear layers are held. Embeddings and head stay in `kind`. A matrix
    /// that the checkpoint holds rounded stays as it is there.
    pub quantization: Option<Quantization>,
}

/// A decoder and its trained parameters.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    options: LoadOptions,
    traits: Traits,
    embed_tokens: Embedding,
    layers: Vec<Box<dyn Block>>,
    norm: RmsNorm,
    /// Absent where the head is the embedding matrix.
    lm_head: Option<Linear>,
    rope: Frequencies,
    rope_local: Option<Frequencies>,
    trainable: Vec<Rc<Param>>,
    adapter: Option<LoraConfig>,
}

/// Why an adapter cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("no linear layer matches the target modules {targets:?}; the model has {known:?}")]
    NoTarget { targets: Vec<String>, known: Vec<String> },
    #[error("rank {rank} is larger than layer `{layer}` ({outputs} x {inputs})")]
    Rank { rank: i64, layer: String, outputs: i64, inputs: i64 },
    #[error("no module matches `{name}` of modules_to_save")]
    NoModule { name: String },
}

impl Model {
    /// Loads a model; every tensor is read once.
    pub fn load(files: &ModelFiles, options: LoadOptions) -> Result<Self, ModelError> {
        let config = ModelConfig::open(files)?;
        let weights = Weights::open(files)?;
        Ok(Self::from_weights(config, &weights, options)?)
    }

    /// Builds a model from an open checkpoint.
    pub fn from_weights(
        config: ModelConfig,
        weights: &Weights,
        options: LoadOptions,
    ) -> Result<Self, LoadError> {
        let loader = Loader::new(weights, &config, options);
        let model = loader.at("model");
        let embed_tokens = model.embedding("embed_tokens")?;
        let layers = (0..config.num_hidden_layers as usize)
            .map(|index| models::block(&model.at("layers").at(&index.to_string()), index))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = model.norm("norm")?;
        let lm_head = if config.tie_word_embeddings {
            None
        } else {
            let (outputs, inputs) = (config.vocab_size, config.hidden_size);
            Some(loader.whole().linear("lm_head", outputs, inputs, false)?)
        };
        let rope = Frequencies::new(&config.rope, &config, options.device);
        let rope_local =
            config.rope_local.as_ref().map(|r| Frequencies::new(r, &config, options.device));
        let traits = models::traits(&config);
        let (trainable, adapter) = (Vec::new(), None);
        Ok(Self {
            config,
            options,
            traits,
            embed_tokens,
            layers,
            norm,
            lm_head,
            rope,
            rope_local,
            trainable,
            adapter,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.options.device
    }

    /// Number format of frozen weights and activations.
    pub fn kind(&self) -> Kind {
        self.options.kind
    }

    /// What is trained, in the order of the checkpoint.
    pub fn trainable(&self) -> &[Rc<Param>] {
        &self.trainable
    }

    /// The adapter's configuration, where one is attached.
    pub fn adapter(&self) -> Option<&LoraConfig> {
        self.adapter.as_ref()
    }

    /// Tokens of the longest sequence whose positions turn as those of shorter ones do, where longer ones turn
    /// otherwise (LongRoPE).
    pub fn long_from(&self) -> Option<usize> {
        self.rope.long_from()
    }

    /// Hidden states `[T, D]` of packed sequences, before the final norm. With a cache, `packed` may
    /// continue sequences that the cache holds.
    pub fn hidden<'m>(
        &'m self,
        tape: &Tape<'m>,
        packed: &'m Packed,
        cache: Option<&'m RefCell<KvCache>>,
    ) -> Var<'m> {
        let table = |frequencies: &Frequencies| RopeTable::new(frequencies, packed, self.kind());
        let local = self.rope_local.as_ref().map(table);
        let context = Rc::new(Context::new(packed, table(&self.rope), local, cache));
        let mut x = self.embed_tokens.forward(tape, packed.ids());
        if let Some(factor) = self.traits.embedding_scale {
            x = tape.scale(&x, factor);
        }
        for layer in &self.layers {
            x = layer.forward(tape, x, &context);
        }
        x
    }

    /// Cross-entropy of the rows that have a target.
    pub fn loss<'m>(&'m self, tape: &Tape<'m>, hidden: &Var<'m>, targets: &Targets) -> Loss {
        let h = self.norm.forward(tape, &tape.rows(hidden, &targets.rows));
        match &self.lm_head {
            Some(head) if head.lora.is_some() => head::loss_through(tape, &h, head, targets),
            _ => head::loss(tape, &h, self.head(), targets),
        }
    }

    /// Logits `[T, V]` of all rows of hidden states.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.logits_with(&Tape::infer(), hidden)
    }

    fn logits_with<'m>(&'m self, tape: &Tape<'m>, hidden: &Tensor) -> Tensor {
        let h = self.norm.forward(tape, &tape.constant(hidden.shallow_clone()));
        match &self.lm_head {
            Some(head) => head.forward(tape, &h).into_tensor(),
            None => products::matmul(h.tensor(), &self.head().value(self.kind()).tr()),
        }
    }

    /// Logits `[B, V]` of each sequence's last token; the cache takes up what `packed` holds.
    pub fn next_logits(&self, packed: &Packed, cache: &RefCell<KvCache>) -> Tensor {
        let hidden = self.hidden(&Tape::infer(), packed, Some(cache)).into_tensor();
        let ends: Vec<i64> = packed
            .lengths()
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end - 1)
            })
            .collect();
        self.logits(&hidden.index_select(0, &Tensor::from_slice(&ends).to_device(self.device())))
    }

    fn head(&self) -> &Weight {
        self.lm_head.as_ref().map_or(&self.embed_tokens.weight, |head| &head.weight)
    }

    /// Every module, in the order of the checkpoint.
    pub fn modules(&mut self) -> Vec<Module<'_>> {
        let mut modules = vec![Module::Embedding(&mut self.embed_tokens)];
        modules.extend(self.layers.iter_mut().flat_map(|layer| layer.modules()));
        modules.push(Module::Norm(&mut self.norm));
        modules.extend(self.lm_head.as_mut().map(Module::Linear));
        modules
    }

    /// Puts adapters beside the layers that `config` names, drawn from `seed`.
    pub fn attach_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<(), AttachError> {
        let device = self.device();
        self.check_targets(config)?;
        for module in self.modules() {
            match module {
                Module::Linear(linear) => attach_to_linear(linear, config, seed, device),
                Module::Norm(norm) if config.saves(&norm.name) => {
                    norm.weight.train(&format!("{}.weight", norm.name));
                }
                Module::Embedding(table) if config.saves(&table.name) => {
                    table.weight.train(&format!("{}.weight", table.name));
                }
                Module::Norm(_) | Module::Embedding(_) => {}
            }
        }
        self.adapter = Some(config.clone());
        self.collect_trainable();
        Ok(())
    }

    fn check_targets(&mut self, config: &LoraConfig) -> Result<(), AttachError> {
        let (mut known, mut names, mut hit) = (Vec::new(), Vec::new(), false);
        for module in self.modules() {
            names.push(module.name().to_owned());
            let Module::Linear(linear) = module else { continue };
            known.push(linear.name.rsplit('.').next().unwrap_or_default().to_owned());
            if !config.targets(&linear.name, linear.name == "lm_head") {
                continue;
            }
            hit = true;
            let (outputs, inputs) = (linear.outputs(), linear.inputs());
            if config.rank > outputs.min(inputs) {
                let (rank, layer) = (config.rank, linear.name.clone());
                return Err(AttachError::Rank { rank, layer, outputs, inputs });
            }
        }
        known.sort();
        known.dedup();
        if !hit {
            return Err(AttachError::NoTarget { targets: config.target_modules.clone(), known });
        }
        let one =
            |name: &String| LoraConfig { modules_to_save: vec![name.clone()], ..config.clone() };
        match config.modules_to_save.iter().find(|name| !names.iter().any(|n| one(name).saves(n))) {
            Some(name) => Err(AttachError::NoModule { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Trains every weight of the model.
    pub fn train_full(&mut self) {
        for module in self.modules() {
            match module {
                Module::Linear(linear) => {
                    linear.weight.train(&format!("{}.weight", linear.name));
                    if let Some(bias) = &mut linear.bias {
                        bias.train(&format!("{}.bias", linear.name));
                    }
                }
                Module::Norm(norm) => norm.weight.train(&format!("{}.weight", norm.name)),
                Module::Embedding(table) => table.weight.train(&format!("{}.weight", table.name)),
            }
        }
        self.collect_trainable();
    }

    fn collect_trainable(&mut self) {
        let mut trainable = Vec::new();
        for module in self.modules() {
            match module {
                Module::Linear(linear) => {
                    trainable.extend(linear.weight.trained().cloned());
                    trainable.extend(linear.bias.as_ref().and_then(Weight::trained).cloned());
                    trainable.extend(
                        linear.lora.iter().flat_map(|lora| [lora.a.clone(), lora.b.clone()]),
                    );
                }
                Module::Norm(norm) => trainable.extend(norm.weight.trained().cloned()),
                Module::Embedding(table) => trainable.extend(table.weight.trained().cloned()),
            }
        }
        self.trainable = trainable;
    }

    /// Switches the low-rank matrices on or off. What is trained in full stays as it is, so that off
    /// is the base model only where [`Model::can_show_base`] says so.
    pub fn enable_adapter(&mut self, on: bool) {
        for module in self.modules() {
            if let Module::Linear(Linear { lora: Some(lora), .. }) = module {
                lora.enabled.set(on);
            }
        }
    }

    /// Whether everything that is trained can be switched off.
    pub fn can_show_base(&self) -> bool {
        self.trainable.iter().all(|param| param.name().contains(".lora_"))
    }
}

fn attach_to_linear(linear: &mut Linear, config: &LoraConfig, seed: u64, device: Device) {
    let name = linear.name.clone();
    let targeted = config.targets(&name, name == "lm_head");
    if config.saves(&name) {
        linear.weight.train(&format!("{name}.weight"));
        if let Some(bias) = &mut linear.bias {
            bias.train(&format!("{name}.bias"));
        }
        return;
    }
    if targeted {
        linear.lora =
            Some(Lora::new(&name, linear.outputs(), linear.inputs(), config, seed, device));
    }
    let bias_trained = match config.bias {
        LoraBias::None => false,
        LoraBias::All => true,
        LoraBias::LoraOnly => targeted,
    };
    if let Some(bias) = linear.bias.as_mut().filter(|_| bias_trained) {
        // PEFT wraps a layer that has an adapter, and the bias is then that of the wrapped layer.
        bias.train(&if targeted {
            format!("{name}.base_layer.bias")
        } else {
            format!("{name}.bias")
        });
    }
}

impl Module<'_> {
    /// The module's name in the checkpoint.
    pub fn name(&self) -> &str {
        match self {
            Self::Linear(linear) => &linear.name,
            Self::Norm(norm) => &norm.name,
            Self::Embedding(table) => &table.name,
        }
    }
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error(transparent)]
    Weights(#[from] crate::weights::WeightsError),
    #[error(transparent)]
    Load(#[from] LoadError),
}
