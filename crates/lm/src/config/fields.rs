//! Typed reading of the fields of a JSON object, with errors that name the field.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ConfigError;

/// The object a configuration is read from, and the file it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    /// Where the object lies in the file, as `text_config.`; empty at the top.
    prefix: &'a str,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &'a Path, prefix: &'a str, value: &'a Value) -> Self {
        Self { path, prefix, value }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there, be it null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.value.as_object().is_none_or(serde_json::Map::is_empty)
    }

    /// The object in field `name`, whose own fields errors will call `prefix` plus their name.
    pub(super) fn object(&self, name: &str, prefix: &'a str) -> Option<Self> {
        self.get(name).map(|value| Fields { path: self.path, prefix, value })
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ConfigError> {
        self.read(name, "a whole number", Value::as_i64)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.read(name, "a number", Value::as_f64)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.read(name, "text", |value| value.as_str())
    }

    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.read(name, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.read(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// A token id or a list of them.
    pub(super) fn token_ids(&self, name: &str) -> Result<Vec<u32>, ConfigError> {
        let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = self.read(name, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(one).collect(),
            value => one(value).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// A size that has no sensible default.
    pub(super) fn size(&self, name: &str, default: Option<i64>) -> Result<i64, ConfigError> {
        self.integer(name)?.or(default).ok_or_else(|| self.fault(name, "is missing".to_owned()))
    }

    pub(super) fn fault(&self, name: &str, reason: String) -> ConfigError {
        let field = format!("{}{name}", self.prefix);
        ConfigError::Field { path: self.path(), field, reason }
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let found = convert(value)
            .ok_or_else(|| self.fault(name, format!("is {value}, and has to be {expected}")))?;
        Ok(Some(found))
    }
}
