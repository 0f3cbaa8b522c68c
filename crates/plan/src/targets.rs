//! Which linear layers get an adapter.
//!
//! The rule is PEFT's: an entry names a layer when it equals the layer's name or ends it after a dot, or
//! when it is a regular expression that matches the whole name. What comes out are plain names, so that
//! the trainer and the readers of the adapter need no patterns.

use std::collections::BTreeSet;

use api::{Fault, LinearFacts};
use regex::Regex;

/// Every linear layer but the head.
pub const ALL_LINEAR: &str = "all-linear";

/// The layer that turns hidden states into logits.
const HEAD: &str = "lm_head";

/// The chosen layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets<'a> {
    /// The fewest names that choose exactly `linears` by PEFT's rule.
    pub names: Vec<String>,
    pub linears: Vec<&'a LinearFacts>,
}

/// Chooses the layers that `targets` name and `exclude` does not. `field` is the path of `lora`.
pub fn choose<'a>(
    linears: &'a [LinearFacts],
    targets: &[String],
    exclude: &[String],
    field: &str,
) -> Result<Targets<'a>, Vec<Fault>> {
    let mut faults = Vec::new();
    let wanted = matching(linears, targets, &format!("{field}.targetModules"), &mut faults);
    let unwanted = matching(linears, exclude, &format!("{field}.excludeModules"), &mut faults);
    let chosen: Vec<&LinearFacts> = linears
        .iter()
        .filter(|linear| {
            wanted.contains(linear.name.as_str()) && !unwanted.contains(linear.name.as_str())
        })
        .collect();
    if chosen.is_empty() && faults.is_empty() {
        faults.push(Fault {
            field: Some(format!("{field}.excludeModules")),
            message: "takes out every layer that targetModules names".to_owned(),
            hint: Some("name fewer layers".to_owned()),
            ..Fault::default()
        });
    }
    if faults.is_empty() {
        Ok(Targets { names: names(linears, &chosen), linears: chosen })
    } else {
        Err(faults)
    }
}

/// Names of the layers that any entry matches; a fault for each entry that matches none.
fn matching<'a>(
    linears: &'a [LinearFacts],
    entries: &[String],
    field: &str,
    faults: &mut Vec<Fault>,
) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let field = Some(format!("{field}[{index}]"));
        match layers_of(linears, entry) {
            Ok(names) if names.is_empty() => faults.push(nothing_matches(linears, entry, field)),
            Ok(names) => all.extend(names),
            Err(error) => {
                let hint = Some("check the regular expression".to_owned());
                let message = format!(
                    "`{entry}` is no name of a layer and cannot be read as a pattern: {error}"
                );
                faults.push(Fault { field, message, hint, ..Fault::default() });
            }
        }
    }
    all
}

fn layers_of<'a>(linears: &'a [LinearFacts], entry: &str) -> Result<Vec<&'a str>, String> {
    let names = linears.iter().map(|linear| linear.name.as_str());
    if entry == ALL_LINEAR {
        return Ok(names.filter(|name| !ends_with_module(name, HEAD)).collect());
    }
    let by_name: Vec<&str> = names.clone().filter(|name| ends_with_module(name, entry)).collect();
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    // The error's last line says what is wrong; those before it draw an arrow.
    let reason =
        |error: regex::Error| error.to_string().lines().last().unwrap_or_default().to_owned();
    let pattern = Regex::new(&format!("^(?:{entry})$")).map_err(reason)?;
    Ok(names.filter(|name| pattern.is_match(name)).collect())
}

fn nothing_matches(linears: &[LinearFacts], entry: &str, field: Option<String>) -> Fault {
    let known: BTreeSet<&str> = linears.iter().map(|linear| last_part(&linear.name)).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let hint = match api::suggestion(entry, &known) {
        Some(name) => format!("did you mean `{name}`? The model has {}", known.join(", ")),
        None => format!("the model has {}; `{ALL_LINEAR}` is all but the head", known.join(", ")),
    };
    let message = format!("no linear layer of the model matches `{entry}`");
    Fault { field, message, hint: Some(hint), ..Fault::default() }
}

/// Last parts of names (`q_proj`) where these choose no more than is meant, whole names elsewhere.
fn names(linears: &[LinearFacts], chosen: &[&LinearFacts]) -> Vec<String> {
    let is_chosen = |linear: &LinearFacts| chosen.iter().any(|other| other.name == linear.name);
    let mut names: Vec<String> = Vec::new();
    for linear in chosen {
        let part = last_part(&linear.name);
        let is_whole = linears.iter().filter(|other| last_part(&other.name) == part).all(is_chosen);
        let name = if is_whole { part } else { &linear.name };
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `a.b.c` ends with the modules `c`, `b.c` and `a.b.c`.
fn ends_with_module(name: &str, module: &str) -> bool {
    name.strip_suffix(module).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
