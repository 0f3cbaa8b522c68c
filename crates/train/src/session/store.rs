//! What a session writes to a folder, and reads back.
//!
//! - `adapter/`: the adapter in PEFT's format, or `model.safetensors`: all weights, after full
//!   fine-tuning;
//! - `optimizer.safetensors`: the optimizer's state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::run_spec::Adapter;
use lm::param::Param;
use lm::peft::{self, PeftError};

use super::Session;
use super::load::lora_config;
use crate::error::RunError;
use crate::files::{self, FileError};
use crate::optim::AdamW;
use crate::tensors::{self, TensorsError};

/// Folder of the adapter inside a saved session.
pub const ADAPTER: &str = "adapter";
/// File of all weights inside a saved session.
pub const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

impl Session {
    /// Writes all that [`Session::restore`] needs into `folder`, which has to exist.
    pub fn save(&self, folder: &Path) -> Result<(), RunError> {
        self.save_weights(folder)?;
        Ok(self.optimizer.save(&folder.join(OPTIMIZER))?)
    }

    /// Writes what is trained.
    pub fn save_weights(&self, folder: &Path) -> Result<(), RunError> {
        match &self.adapter {
            Adapter::Lora(lora) => {
                let folder = folder.join(ADAPTER);
                files::create_folder(&folder)?;
                peft::save(&self.model, &lora_config(lora), &self.base_model, &folder)
                    .map_err(adapter_error)
            }
            Adapter::Full => {
                let params = self.model.trainable().iter();
                let named: BTreeMap<_, _> = params
                    .map(|param| (param.name().to_owned(), param.value().shallow_clone()))
                    .collect();
                Ok(tensors::write(&folder.join(WEIGHTS), &named)?)
            }
        }
    }

    /// Goes back to the state that [`Session::save`] wrote after `step` steps.
    pub fn restore(&mut self, folder: &Path, step: u64) -> Result<(), RunError> {
        self.restore_weights(folder)?;
        let params: Vec<&Param> = self.model.trainable().iter().map(AsRef::as_ref).collect();
        self.optimizer = AdamW::load(self.settings, &folder.join(OPTIMIZER), &params)?;
        self.step = step;
        Ok(())
    }

    /// Takes over what is trained, and leaves the optimizer alone.
    pub fn restore_weights(&mut self, folder: &Path) -> Result<(), RunError> {
        match &self.adapter {
            Adapter::Lora(_) => {
                let path = folder.join(ADAPTER).join(peft::ADAPTER_WEIGHTS);
                peft::load_weights(&self.model, &path).map_err(adapter_error)
            }
            Adapter::Full => self.restore_all(&folder.join(WEIGHTS)),
        }
    }

    fn restore_all(&self, path: &Path) -> Result<(), RunError> {
        let mut named = tensors::read(path)?;
        for param in self.model.trainable() {
            let missing =
                || TensorsError::Missing { path: path.to_owned(), name: param.name().to_owned() };
            param.assign(&named.remove(param.name()).ok_or_else(missing)?);
        }
        Ok(())
    }
}

impl From<TensorsError> for RunError {
    fn from(error: TensorsError) -> Self {
        match error {
            TensorsError::File(error) => Self::File(error),
            damaged @ (TensorsError::Malformed { .. } | TensorsError::Missing { .. }) => {
                Self::configuration(
                    damaged.to_string(),
                    "remove that checkpoint's folder and run the same command again",
                )
            }
        }
    }
}

fn adapter_error(error: PeftError) -> RunError {
    let file = |doing, path: PathBuf, source| RunError::File(FileError { doing, path, source });
    match error {
        PeftError::Write { path, source } => file("write", path, source),
        PeftError::Read { path, source } => file("read", path, source),
        other => RunError::configuration(
            crate::error::with_sources(&other),
            "remove that checkpoint's folder and run the same command again",
        ),
    }
}
