//! Rotary embedding parameters: `rope_parameters` (flat or keyed by layer type), `rope_scaling` beside
//! `rope_theta`, and Gemma's `rope_local_base_freq`.

use serde_json::Value;

use super::fields::Fields;
use super::{ConfigError, ModelType, Rope, RopeScaling};

/// The types that can be computed, for messages.
pub(super) const KNOWN: &str = "default, linear, llama3, yarn, longrope";

/// What absent parameters fall back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeDefaults {
    pub(super) model_type: ModelType,
    pub(super) max_position_embeddings: i64,
}

/// The embedding of the layers that see everything.
pub(super) fn full(fields: Fields<'_>, defaults: &RopeDefaults) -> Result<Rope, ConfigError> {
    let gemma = defaults.model_type == ModelType::Gemma3Text;
    let theta = if gemma { 1_000_000.0 } else { 10_000.0 };
    let theta = fields.number("rope_theta")?.unwrap_or(theta);
    read(fields, parameters(fields, "full_attention"), theta, defaults)
}

/// The embedding of Gemma's sliding layers, which is never scaled by the old `rope_scaling`.
pub(super) fn local(fields: Fields<'_>, defaults: &RopeDefaults) -> Result<Rope, ConfigError> {
    let theta = fields.number("rope_local_base_freq")?.unwrap_or(10_000.0);
    let nested = fields
        .object("rope_parameters", "rope_parameters.")
        .and_then(|all| all.object("sliding_attention", "rope_parameters.sliding_attention."));
    read(fields, nested, theta, defaults)
}

/// The object that holds the parameters. As in transformers, the old `rope_scaling` wins.
fn parameters<'a>(fields: Fields<'a>, layer: &str) -> Option<Fields<'a>> {
    let not_empty = |found: &Fields<'_>| !found.is_empty();
    if let Some(old) = fields.object("rope_scaling", "rope_scaling.").filter(not_empty) {
        return Some(old);
    }
    let new = fields.object("rope_parameters", "rope_parameters.").filter(not_empty)?;
    match new.object(layer, "rope_parameters.full_attention.") {
        Some(nested) => Some(nested),
        None if new.get("sliding_attention").is_some_and(Value::is_object) => None,
        None => Some(new),
    }
}

fn read(
    fields: Fields<'_>,
    parameters: Option<Fields<'_>>,
    default_theta: f64,
    defaults: &RopeDefaults,
) -> Result<Rope, ConfigError> {
    let outer_factor = fields.number("partial_rotary_factor")?.unwrap_or(1.0);
    let Some(found) = parameters else {
        return Ok(Rope {
            theta: default_theta,
            scaling: RopeScaling::None,
            partial_rotary_factor: outer_factor,
        });
    };
    Ok(Rope {
        theta: found.number("rope_theta")?.unwrap_or(default_theta),
        scaling: scaling(fields, found, defaults)?,
        partial_rotary_factor: found.number("partial_rotary_factor")?.unwrap_or(outer_factor),
    })
}

fn scaling(
    fields: Fields<'_>,
    found: Fields<'_>,
    defaults: &RopeDefaults,
) -> Result<RopeScaling, ConfigError> {
    let name = match found.text("rope_type")? {
        Some(name) => name,
        None => found.text("type")?.unwrap_or("default"),
    };
    // Phi-3 called its own scaling by two other names.
    let phi = defaults.model_type == ModelType::Phi3;
    match name {
        "default" => Ok(RopeScaling::None),
        "longrope" | "su" => long(fields, found, defaults),
        "yarn" if phi => long(fields, found, defaults),
        "linear" => Ok(RopeScaling::Linear { factor: need(found, "factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: need(found, "factor")?,
            low_freq_factor: need(found, "low_freq_factor")?,
            high_freq_factor: need(found, "high_freq_factor")?,
            original_max_position_embeddings: original_positions(fields, found, defaults)?,
        }),
        "yarn" => yarn(fields, found, defaults),
        other => Err(ConfigError::UnknownRope { path: fields.path(), found: other.to_owned() }),
    }
}

fn long(
    fields: Fields<'_>,
    found: Fields<'_>,
    defaults: &RopeDefaults,
) -> Result<RopeScaling, ConfigError> {
    let original = original_positions(fields, found, defaults)?;
    let list =
        |name: &str| found.numbers(name)?.ok_or_else(|| found.fault(name, "is missing".to_owned()));
    let factor = stretch(found, defaults, original)?;
    Ok(RopeScaling::LongRope {
        short_factor: list("short_factor")?,
        long_factor: list("long_factor")?,
        original_max_position_embeddings: original,
        attention_factor: found
            .number("attention_factor")?
            .unwrap_or_else(|| long_rope_attention_factor(factor, original)),
    })
}

/// LongRoPE's recommended factor on cosine and sine.
pub(super) fn long_rope_attention_factor(factor: f64, original: i64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() }
}

fn yarn(
    fields: Fields<'_>,
    found: Fields<'_>,
    defaults: &RopeDefaults,
) -> Result<RopeScaling, ConfigError> {
    let original = original_positions(fields, found, defaults)?;
    let factor = stretch(found, defaults, original)?;
    let positive = |name: &str| -> Result<Option<f64>, ConfigError> {
        Ok(found.number(name)?.filter(|&value| value != 0.0))
    };
    let attention_factor = match found.number("attention_factor")? {
        Some(value) => value,
        None => match (positive("mscale")?, positive("mscale_all_dim")?) {
            (Some(one), Some(all)) => yarn_scale(factor, one) / yarn_scale(factor, all),
            _ => yarn_scale(factor, 1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: positive("beta_slow")?.unwrap_or(1.0),
        attention_factor,
        truncate: found.boolean("truncate")?.unwrap_or(true),
    })
}

/// `YaRN`'s factor on cosine and sine for a context `factor` times as long.
pub(super) fn yarn_scale(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

fn stretch(found: Fields<'_>, defaults: &RopeDefaults, original: i64) -> Result<f64, ConfigError> {
    let ratio = defaults.max_position_embeddings as f64 / original as f64;
    Ok(found.number("factor")?.unwrap_or(ratio))
}

/// The context length of pretraining: beside the parameters, among them, or the model's own.
fn original_positions(
    fields: Fields<'_>,
    found: Fields<'_>,
    defaults: &RopeDefaults,
) -> Result<i64, ConfigError> {
    const NAME: &str = "original_max_position_embeddings";
    let default = match defaults.model_type {
        ModelType::Phi3 => Some(4096),
        _ => None,
    };
    let original = match fields.integer(NAME)?.or(default) {
        Some(length) => length,
        None => found.integer(NAME)?.unwrap_or(defaults.max_position_embeddings),
    };
    if original < 1 {
        return Err(found.fault(NAME, format!("is {original}, and has to be at least 1")));
    }
    Ok(original)
}

fn need(found: Fields<'_>, name: &str) -> Result<f64, ConfigError> {
    found.number(name)?.ok_or_else(|| found.fault(name, "is missing".to_owned()))
}
