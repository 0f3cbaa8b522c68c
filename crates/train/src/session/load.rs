//! Sessions from a run specification: the device, the number format, and what is trained.

use api::RunSpec;
use api::run_spec::{self, Adapter, LoraBias, Precision, Quantization};
use lm::files::ModelFiles;
use lm::lora::LoraConfig;
use lm::model::{AttachError, LoadOptions, Model, ModelError};
use tch::{Cuda, Device, Kind};

use super::{Session, settings};
use crate::error::RunError;
use crate::optim::AdamW;

impl Session {
    /// Loads the base model and attaches what is trained to it.
    pub fn open(spec: &RunSpec, files: &ModelFiles) -> Result<Self, RunError> {
        let mut model = load_model(spec, files)?;
        match &spec.adapter {
            Adapter::Lora(lora) => model
                .attach_lora(&lora_config(lora), spec.training.seed)
                .map_err(|error| attach_error(&error))?,
            Adapter::Full => model.train_full(),
        }
        let settings = settings(&spec.training);
        Ok(Self {
            model,
            optimizer: AdamW::new(settings),
            settings,
            adapter: spec.adapter.clone(),
            method: spec.method.clone(),
            base_model: spec.base_model.reference.clone(),
            checkpointing: spec.training.activation_checkpointing,
            seed: spec.training.seed,
            step: 0,
        })
    }

    /// Turns into a session with the base model: by switching the adapter off where that is all
    /// there is, else by loading the base model again in place of this one.
    pub fn into_base(mut self, spec: &RunSpec, files: &ModelFiles) -> Result<Self, RunError> {
        if self.model.can_show_base() {
            self.model.enable_adapter(false);
            return Ok(self);
        }
        let Self { model, optimizer, settings, adapter, method, base_model, .. } = self;
        drop((model, optimizer));
        Ok(Self {
            model: load_model(spec, files)?,
            optimizer: AdamW::new(settings),
            settings,
            adapter,
            method,
            base_model,
            checkpointing: false,
            seed: spec.training.seed,
            step: 0,
        })
    }
}

/// The device that a run specification means on this machine.
pub fn device(spec: &RunSpec) -> Result<Device, RunError> {
    match (spec.compute.device, Cuda::is_available()) {
        (run_spec::Device::Auto | run_spec::Device::Cuda, true) => Ok(Device::Cuda(0)),
        (run_spec::Device::Auto, false) | (run_spec::Device::Cpu, _) => Ok(Device::Cpu),
        (run_spec::Device::Cuda, false) => Err(RunError::configuration(
            "cannot train on CUDA: LibTorch finds no GPU",
            "leave the device out to train on the CPU, or use a LibTorch with CUDA",
        )),
    }
}

fn load_model(spec: &RunSpec, files: &ModelFiles) -> Result<Model, RunError> {
    let kind = match spec.training.precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let quantization = match spec.training.quantization {
        Quantization::None => None,
        Quantization::Nf4 => Some(lm::layers::Quantization::Nf4),
        Quantization::Int8 => Some(lm::layers::Quantization::Int8),
    };
    let options = LoadOptions { kind, device: device(spec)?, quantization };
    Model::load(files, options).map_err(|error| model_error(&error))
}

/// The run specification's settings in the words of the model crate.
pub fn lora_config(lora: &run_spec::Lora) -> LoraConfig {
    LoraConfig {
        rank: lora.rank as i64,
        alpha: lora.alpha,
        dropout: lora.dropout,
        target_modules: lora.target_modules.clone(),
        exclude_modules: lora.exclude_modules.clone(),
        rslora: lora.rslora,
        bias: match lora.bias {
            LoraBias::None => lm::lora::LoraBias::None,
            LoraBias::All => lm::lora::LoraBias::All,
            LoraBias::LoraOnly => lm::lora::LoraBias::LoraOnly,
        },
        modules_to_save: lora.modules_to_save.clone(),
    }
}

fn model_error(error: &ModelError) -> RunError {
    RunError::configuration(crate::error::with_sources(error), "check the base model's files")
}

fn attach_error(error: &AttachError) -> RunError {
    let hint = match error {
        AttachError::NoTarget { .. } => "name modules of this model, or leave targetModules out",
        AttachError::Rank { .. } => "use a smaller rank, or exclude that layer",
        AttachError::NoModule { .. } => "name a module of this model, such as `lm_head`",
    };
    RunError::configuration(error.to_string(), hint)
}
