//! `images`: packs our programs as OCI images, into layout folders, archives or straight into a registry.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

mod archive;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use images::{ALL, one};
use oci::{Image, Options, Target};

/// What the chart names if nothing else is said.
const PUBLISHED: &str = "ghcr.io/anneal-dev";

#[derive(Debug, Parser)]
#[command(name = "images", about = "Packs our programs as OCI images, without Docker")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Operator, trainer and server
    All(All),
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

#[derive(Debug, clap::Args)]
struct All {
    /// Folder of OCI layouts, each of which is named like its image
    #[arg(long, required_unless_present_any = ["archive", "push"])]
    output: Option<PathBuf>,
    /// Folder of archives that `kind load`, `minikube image load` and `ctr` take
    #[arg(long)]
    archive: Option<PathBuf>,
    /// Registry and prefix, such as registry.example.com/anneal
    #[arg(long)]
    push: Option<String>,
    #[arg(long, default_value = "latest")]
    tag: String,
    /// Speak http to the registry
    #[arg(long)]
    plain_http: bool,
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
        What::All(all) => run_all(&all),
        What::One { program, target, plain_http } => put(&one(&program)?, &target, plain_http),
    }
}

fn run_all(all: &All) -> Result<()> {
    let own = std::env::current_exe().context("cannot tell where the build is")?;
    let builds = own.parent().unwrap_or(&own);
    let mut rows = Vec::new();
    for ours in ALL {
        let image = ours.image(builds).with_context(|| ours.image.to_owned())?;
        let mut made = Vec::new();
        if let Some(folder) = &all.output {
            let target = Target::layout(folder.join(ours.image), &all.tag);
            put(&image, &target, false)?;
            made.push(target.to_string());
        }
        if let Some(folder) = &all.archive {
            let reference = format!("{PUBLISHED}/{}:{}", ours.image, all.tag);
            archive::write(&image, &folder.join(format!("{}.tar", ours.image)), &reference)?;
            made.push(reference);
        }
        if let Some(prefix) = &all.push {
            let reference = format!("{prefix}/{}:{}", ours.image, all.tag);
            put(&image, &reference.parse()?, all.plain_http)?;
            made.push(reference);
        }
        let about = (image.digest().to_owned(), size(image.size()));
        rows.extend(made.into_iter().map(|image| (image, about.0.clone(), about.1.clone())));
    }
    print(&rows);
    Ok(())
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
