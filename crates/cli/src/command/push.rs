//! `anneal push`: an adapter, a model or data to a registry or into a layout folder.

use std::collections::BTreeMap;
use std::path::Path;

use oci::reference::Name;
use oci::{Folder, Image, Target, image};
use serde_json::json;

use crate::args::{Kind, Output, PushArgs};
use crate::failure::Failure;
use crate::say::{self, say};
use crate::sources::{self, LocalAdapter, registry_failure, registry_options};
use crate::view::format;
use crate::view::transfer::Transfer;

/// Pushes, and says under which digest.
pub(crate) fn run(args: &PushArgs) -> Result<(), Failure> {
    let target: Target = parse(&args.target)?;
    let image = packed(&args.source, args.kind)?;
    let options = registry_options(&args.registry);
    let (options, bar) = Transfer::shown(options, "pushing", args.output.output);
    let pushed = oci::blocking::push(&image, &target, &options);
    drop(bar);
    let pushed = pushed.map_err(|error| registry_failure(&error))?;
    match args.output.output {
        Output::Text => {
            let size = format::bytes(pushed.size);
            match pushed.sent {
                0 => say!("pushed   {} ({size}, all of it was there)", pushed.target),
                sent => say!("pushed   {} ({size}, {} sent)", pushed.target, format::bytes(sent)),
            }
            say!("digest   {}", pushed.digest);
        }
        Output::Json => say::json(&json!({
            "reference": pushed.target.to_string(),
            "digest": pushed.digest,
            "size": pushed.size,
            "sent": pushed.sent,
        })),
    }
    Ok(())
}

fn parse(text: &str) -> Result<Target, Failure> {
    text.parse().map_err(|error| registry_failure(&oci::Error::Reference(error)))
}

/// The image that a layout folder holds, the one that a run has packed, or a new one.
fn packed(source: &str, kind: Kind) -> Result<Image, Failure> {
    if source.starts_with("oci:") {
        let Target::Layout { path, name } = parse(source)? else {
            return Err(Failure::configuration(format!("`{source}` is not a layout folder")));
        };
        return read(&path, &name);
    }
    let path = Path::new(source);
    let run = path.join("image");
    if kind == Kind::Auto && run.join("index.json").is_file() {
        return read(&run, &Name::Unnamed);
    }
    let kind = if kind == Kind::Auto { kind_of(path)? } else { kind };
    let none = BTreeMap::new();
    let whole = |root, path| oci::image_from_dirs(&[Folder { root, path }], &none);
    let made = match kind {
        Kind::Model => whole(image::MODELS, path),
        Kind::Data => whole(image::DATA, path),
        Kind::Adapter | Kind::Auto => match sources::find_adapter(path)? {
            LocalAdapter::Peft { folder, .. } => oci::adapter_image(&folder, &none),
            LocalAdapter::Full { folder } => whole(image::MODELS, &folder),
        },
    };
    made.map_err(|error| registry_failure(&oci::Error::Image(error)))
}

/// What a source is, by its files. A run's folder stands for its result.
fn kind_of(path: &Path) -> Result<Kind, Failure> {
    let has = |name: &str| path.join(name).exists();
    if !path.exists() {
        return Err(Failure::configuration(format!(
            "there is no file or folder `{}`",
            path.display()
        ))
        .with_hint("name what to push: a run's folder such as `.anneal/NAME`, or files"));
    }
    Ok(if has("adapter_config.json") || has("run.json") {
        Kind::Adapter
    } else if has("config.json") || path.extension().is_some_and(|ending| ending == "gguf") {
        Kind::Model
    } else {
        Kind::Data
    })
}

fn read(path: &Path, name: &Name) -> Result<Image, Failure> {
    oci::layout::read(path, name).map_err(|error| registry_failure(&oci::Error::Layout(error)))
}
