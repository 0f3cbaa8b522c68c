//! `images`: packs our programs as OCI images, into layout folders or straight into a registry.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use images::{ALL, one};
use oci::{Image, Options, Target};

#[derive(Debug, Parser)]
#[command(name = "images", about = "Packs our programs as OCI images, without Docker")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Operator and trainer
    All {
        /// Folder of the layouts, each of which is named like its image
        #[arg(long, required_unless_present = "push")]
        output: Option<PathBuf>,
        /// Registry and prefix, such as registry.example.com/anneal
        #[arg(long)]
        push: Option<String>,
        #[arg(long, default_value = "latest")]
        tag: String,
        /// Speak http to the registry
        #[arg(long)]
        plain_http: bool,
    },
    /// Any one program
    One {
        program: PathBuf,
        /// An image in a registry, or oci:FOLDER:TAG
        target: Target,
        /// Speak http to the registry
        #[arg(long)]
        plain_http: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::All { output, push, tag, plain_http } => {
            let own = std::env::current_exe().context("cannot tell where the build is")?;
            let builds = own.parent().unwrap_or(&own);
            let mut rows = Vec::new();
            for ours in ALL {
                let image = ours.image(builds).with_context(|| ours.image.to_owned())?;
                let layout =
                    output.as_ref().map(|folder| Target::layout(folder.join(ours.image), &tag));
                let pushed =
                    push.as_ref().map(|prefix| format!("{prefix}/{}:{tag}", ours.image).parse());
                for target in layout.into_iter().chain(pushed.transpose()?) {
                    put(&image, &target, plain_http)?;
                    rows.push((target.to_string(), image.digest().to_owned(), size(image.size())));
                }
            }
            print(&rows);
            Ok(())
        }
        What::One { program, target, plain_http } => put(&one(&program)?, &target, plain_http),
    }
}

fn put(image: &Image, target: &Target, plain_http: bool) -> Result<()> {
    let options = Options { plain_http, ..Options::default() };
    oci::blocking::push(image, target, &options)
        .map_err(|error| {
            let hint = error.hint().map(|hint| format!("next: {hint}")).unwrap_or_default();
            anyhow::Error::new(error).context(hint)
        })
        .with_context(|| format!("cannot put the image to {target}"))?;
    Ok(())
}

fn print(rows: &[(String, String, String)]) {
    let width = rows.iter().map(|(image, ..)| image.len()).max().unwrap_or(0);
    println!("{:width$}  {:71}  {:>9}", "image", "digest", "size");
    for (image, digest, size) in rows {
        println!("{image:width$}  {digest:71}  {size:>9}");
    }
}

fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
