//! `anneal pull`: the files of an image into a folder.

use oci::{PullOptions, Target};
use serde_json::json;

use crate::args::{Output, PullArgs};
use crate::failure::Failure;
use crate::say::{self, say};
use crate::sources::{registry_failure, registry_options};
use crate::view::format;
use crate::view::transfer::Transfer;

/// Pulls, and says what came.
pub(crate) fn run(args: &PullArgs) -> Result<(), Failure> {
    let target: Target =
        args.source.parse().map_err(|error| registry_failure(&oci::Error::Reference(error)))?;
    let options = registry_options(&args.registry);
    let (options, bar) = Transfer::shown(options, "pulling", args.output.output);
    let pulled = oci::blocking::pull(&target, &args.folder, &PullOptions::default(), &options);
    drop(bar);
    let pulled = pulled.map_err(|error| registry_failure(&error))?;
    match args.output.output {
        Output::Text => {
            let size = format::bytes(pulled.bytes);
            let there = if pulled.was_there { ", which were there" } else { "" };
            let noun = if pulled.files == 1 { "file" } else { "files" };
            say!(
                "pulled   {} {noun}, {size}{there}, into {}",
                format::count(pulled.files),
                pulled.folder.display()
            );
            say!("digest   {}", pulled.digest);
        }
        Output::Json => say::json(&json!({
            "folder": pulled.folder,
            "digest": pulled.digest,
            "files": pulled.files,
            "bytes": pulled.bytes,
            "wasThere": pulled.was_there,
            "annotations": pulled.annotations,
        })),
    }
    Ok(())
}
